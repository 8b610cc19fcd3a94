"""Reasoning apart from the answer, however a template and a model write it."""

from __future__ import annotations

import pytest

from elastic_runtime.text.reasoning import begins_reasoning, split_reasoning


@pytest.mark.parametrize(
    ("text", "begun", "reasoning", "answer"),
    [
        ("Yes.", False, "", "Yes."),
        ("<think>\nhm\n</think>\n\nYes.", False, "hm", "Yes."),
        ("hm\n</think>\n\nYes.", True, "hm", "Yes."),
        ("<think></think>Yes.", False, "", "Yes."),
        ("\n<think>\nhm, and on", False, "hm, and on", ""),
        ("hm, and on", True, "hm, and on", ""),
        ("hm</think>a</think>b", True, "hm", "a</think>b"),
        ("", False, "", ""),
        ("", True, "", ""),
    ],
)
def test_what_was_thought_and_what_was_said(text: str, begun: bool, reasoning: str, answer: str) -> None:
    assert split_reasoning(text, begun=begun) == (reasoning, answer)


def test_a_prompt_may_open_it() -> None:
    assert begins_reasoning("<s>Assistant\n<think>\n")
    assert not begins_reasoning("<s>Assistant\n<think></think>")
    assert not begins_reasoning("<s>Assistant\n")
