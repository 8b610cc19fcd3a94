"""Text: tokenizer, chat template, and which ids end a text."""
