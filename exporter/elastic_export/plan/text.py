"""Whether the text of a bundle will work, tried before anything is built: what is shipped is opened here as there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.shipped import generation_config
from elastic_export.plan.template_trial import TemplateTrial
from elastic_runtime.errors import InputError
from elastic_runtime.text.tokenizer import Tokenizer

#: Several scripts, a character of several tokens, spaces at both ends.
_TRIAL = " Hello, wörld! 你好 🙂\n "
#: As OpenAI's interface has it, which most templates are made for.
_TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "The sum of two numbers",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number", "description": "One of them"}},
            "required": ["a"],
        },
    },
}
_CORRECT = "correct it, or take it out of the checkpoint: token ids need none"


def check_text(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Try the companions: they can be copied, the tokenizer encodes and decodes, the chat template takes a message, ids
    that end a text are ids.

    Returns:
        What a user should know and may be meant so.

    Raises:
        InputError: naming the file.
    """
    checkpoint.companions()
    generation_config(checkpoint)
    if not (checkpoint.path / "tokenizer.json").is_file():
        return ()
    with TemplateTrial() as trial:
        return tuple(_notes(checkpoint, Tokenizer(checkpoint.path), trial))


def _notes(checkpoint: Checkpoint, tokenizer: Tokenizer, trial: TemplateTrial) -> list[str]:
    ids = _tried(checkpoint, tokenizer)
    vocabulary, notes = checkpoint.architecture.vocab_size, []
    if not ids:
        file = checkpoint.path / "tokenizer.json"
        notes.append(f"{file}: makes no token of a text, so the bundle takes token ids alone")
    if max(ids, default=0) >= vocabulary:
        notes.append(f"{checkpoint.path / 'tokenizer.json'}: gives id {max(ids)}, and the model knows {vocabulary} ids")
    if tokenizer.has_template:
        notes += _tried_template(checkpoint, tokenizer, trial)
    if tokenizer.has_tool_template:
        notes += _tried_template(checkpoint, tokenizer, trial, _TOOL)
    return notes


def _tried(checkpoint: Checkpoint, tokenizer: Tokenizer) -> list[int]:
    subject = str(checkpoint.path / "tokenizer.json")
    ids = tokenizer.encode(_TRIAL)
    stream = tokenizer.stream()
    text = "".join([*map(stream.push, ids), stream.finish()])
    whole = tokenizer.decode(ids)
    if text != whole:
        raise InputError(subject, expected=f"{whole!r}, token by token too", found=repr(text), todo=_CORRECT)
    return ids


def _tried_template(
    checkpoint: Checkpoint, tokenizer: Tokenizer, trial: TemplateTrial, tool: Mapping[str, Any] | None = None
) -> list[str]:
    message = {"role": "user", "content": "Hello"}
    failure = trial.render(tokenizer.conversation([message], tools=[tool] if tool else None))
    if failure is None:
        return []
    subject, what = f"{checkpoint.path}, chat template", "a tool" if tool else "a single message"
    if failure.kind == "TemplateError":  # its own refusal: it may ask for something else
        return [f"{subject}: refuses {what}: {failure.found}"]
    if tool and failure.kind not in ("TemplateSyntaxError", ""):  # made for tools of another form, maybe
        return [f"{subject}: fails on {what} of OpenAI's form: {failure.found}"]
    raise InputError(subject, expected=failure.expected, found=failure.found, todo=_CORRECT)
