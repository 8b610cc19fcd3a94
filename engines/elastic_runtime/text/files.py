"""What files of a checkpoint's text are called that both an export, which copies them, and their readers ask for."""

#: Where transformers keeps chat templates that have names.
TEMPLATES = "additional_chat_templates"
#: Which ids end a text, among what a generation is to be like.
GENERATION = "generation_config.json"
