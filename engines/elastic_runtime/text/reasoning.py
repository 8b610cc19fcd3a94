"""A reasoning model's thoughts apart from its answer: what stands before `</think>`."""

from __future__ import annotations

_BEGIN, _END = "<think>", "</think>"


def split_reasoning(text: str, *, begun: bool = False) -> tuple[str, str]:
    """(reasoning, answer) of an assistant's whole text, without the marks and the blank lines around them.

    Args:
        text: what was generated.
        begun: whether the prompt ended in `<think>`, so that the text begins within it.

    A text that never says `</think>` is an answer, unless it has begun to think: then it was cut, and there is none.
    """
    opened = begun or text.lstrip().startswith(_BEGIN)
    before, end, after = text.partition(_END)
    if not end:
        return (_without_mark(text), "") if opened else ("", text)
    return _without_mark(before), after.lstrip("\n")


def begins_reasoning(prompt: str) -> bool:
    """Whether what is generated after a prompt is reasoning from its first letter on."""
    return prompt.rstrip().endswith(_BEGIN)


def _without_mark(text: str) -> str:
    return text.strip().removeprefix(_BEGIN).strip("\n")
