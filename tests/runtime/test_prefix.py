"""Prompts of which only what is new is fed: ten turns of a reasoning model, whose template drops what it thought."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from elastic_runtime.backend import Origin
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.generation import Settings, generate
from elastic_runtime.prefix import Prefix, common, lasting
from elastic_runtime.session import Session
from elastic_runtime.text.reasoning import begins_reasoning, split_reasoning
from elastic_runtime.text.tokenizer import Message, Tokenizer

CONTEXT, END = 4096, 260

#: As the family's: thoughts are never given again, and the last line opens them or closes them at once.
TEMPLATE = """
{%- for message in messages -%}
[{{ message.role }}]{{ message.content }}~
{%- endfor -%}
{%- if add_generation_prompt -%}
[assistant]{% if enable_thinking %}<think>{% else %}<think></think>{% endif %}
{%- endif -%}
"""


class Tape:
    """A backend whose states are all that it was fed, and which says what it is told to."""

    name, device, max_tokens, max_batch, vocab_size, origin = "tape", "cpu", 64, 1, 264, Origin("b", "small")

    def __init__(self, context: int = CONTEXT) -> None:
        self.max_context, self.fed, self.said, self.begin = context, 0, list[int](), 0

    def start(self, batch: int) -> None:
        self.tape: list[int] = []

    def call_size(self, wanted: int, most: int) -> int:
        return min(wanted, most, self.max_tokens)

    def call(self, input_ids: Any, position: Any, length: Any) -> Any:
        assert position[0] == len(self.tape)
        self.tape += input_ids[0, : length[0]].tolist()
        self.fed += int(length[0])
        logits = np.zeros((1, self.vocab_size), np.float32)
        at = len(self.tape) - self.begin
        logits[0, self.said[at] if 0 <= at < len(self.said) else 0] = 1
        return logits

    def save(self, rows: int, device: str) -> Any:
        return SimpleNamespace(tape=list(self.tape), nbytes=8 * rows, device=device, free=lambda: None)

    def load(self, saved: Any) -> None:
        self.tape = list(saved.tape)

    def states(self) -> Mapping[str, Any]:
        return {}

    def memory(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def tokenizer(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("template")
    shutil.copy(demo_bundle / "tokenizer.json", folder)
    config = json.loads((demo_bundle / "tokenizer_config.json").read_text("utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}), "utf-8")
    return Tokenizer(folder)


def _converse(tokenizer: Tokenizer, *, thinking: bool, turns: int = 10) -> tuple[list[int], list[int], list[int]]:
    """By turn: ids of the whole prompt, ids that were fed before the answer began, ids that a fresh look calls new."""
    backend = Tape()
    session, arguments = Session(backend), {"enable_thinking": thinking}  # type: ignore[arg-type]
    prefix, messages = Prefix(session), list[Message]()
    whole, fed, new, before = list[int](), list[int](), list[int](), list[int]()
    for number in range(turns):
        messages.append({"role": "user", "content": f"question {number}"})
        prompt = tokenizer.render(messages, arguments=arguments)
        ids = tokenizer.encode(prompt, special=False)
        answer = ("let me see, hm, hm</think>" if thinking else "") + f"answer {number}"
        backend.said, backend.begin, backend.fed = [*tokenizer.encode(answer, special=False), END], len(ids), 0
        rest = prefix.advance(ids, lasting(tokenizer, messages, ids, arguments))
        pieces = list(generate(session, [rest], Settings(stop_ids=(END,)), tokenizer))
        assert [piece.id for piece in pieces] == backend.said
        assert backend.tape == [*ids, *backend.said[:-1]]  # whatever was copied back: all of the prompt, in its order
        whole.append(len(ids))
        fed.append(backend.fed - (len(pieces) - 1))  # the last token of an answer is pending
        new.append(len(ids) - common(ids, before))
        assert prefix.fed + len(rest) == fed[-1]
        before = backend.tape
        text = "".join(piece.text for piece in pieces)
        messages.append({"role": "assistant", "content": split_reasoning(text, begun=begins_reasoning(prompt))[1]})
    return whole, fed, new


@pytest.mark.parametrize("thinking", [True, False], ids=["thinking", "not thinking"])
def test_ten_turns_are_fed_only_what_is_new(tokenizer: Tokenizer, thinking: bool) -> None:
    whole, fed, new = _converse(tokenizer, thinking=thinking)
    assert fed == new
    assert len(set(fed[1:])) == 1  # every turn is as long as the one before
    assert whole[-1] > 6 * fed[-1]


def test_an_answer_that_the_next_prompt_repeats_is_not_fed_again() -> None:
    backend = Tape()
    session = Session(backend)  # type: ignore[arg-type]
    prefix = Prefix(session)
    assert prefix.advance([1, 2, 3]) == [1, 2, 3]
    session.prefill([[1, 2, 3]])
    session.set_pending(0, 9)
    assert prefix.advance([1, 2, 3, 9, 4]) == [9, 4]
    assert session.pending == (None,)


def test_a_prompt_that_shares_nothing_begins_anew() -> None:
    session = Session(Tape())  # type: ignore[arg-type]
    prefix = Prefix(session)
    assert prefix.advance([1, 2, 3], keep=2) == [3]
    assert prefix.fed == 2
    assert prefix.advance([5, 6], keep=2) == [6]  # at least one is left
    assert session.tokens == [[5]]
    assert prefix.advance([5]) == [5]
    assert session.tokens == [[]]


def test_a_prompt_beyond_the_context_is_refused_and_the_copy_stays() -> None:
    session = Session(Tape(8))  # type: ignore[arg-type]
    prefix = Prefix(session)
    session.prefill([prefix.advance([1, 2, 3, 4], keep=3)])
    with pytest.raises(InputError, match="sequence: expected at most 8 tokens, the context, found 9"):
        session.prefill([prefix.advance([1, 2, 3, 5, 6, 7, 8, 9, 10], keep=5)])
    assert prefix.advance([1, 2, 3, 6]) == [6]
    assert session.tokens == [[1, 2, 3]]


def test_a_copy_of_another_budget_is_not_put_back() -> None:
    session = Session(Tape())  # type: ignore[arg-type]
    prefix = Prefix(session)
    session.prefill([prefix.advance([1, 2, 3, 4], keep=3)])
    session.backend.origin = Origin("b", "large")
    assert prefix.advance([1, 2, 3, 5]) == [1, 2, 3, 5]


def test_a_card_without_room_for_a_copy_costs_the_copy_and_not_the_turn() -> None:
    """Even one in main memory goes through a little of the card's."""

    class Full(Tape):
        full = True

        def save(self, rows: int, device: str) -> Any:
            return self._refused() or super().save(rows, device)

        def load(self, saved: Any) -> None:
            self.tape = []
            self._refused()
            super().load(saved)

        def _refused(self) -> None:
            if self.full:
                raise BuildError("card", expected="room for 9 bytes more", found="none", todo="close what uses it")

    backend = Full()
    session = Session(backend)  # type: ignore[arg-type]
    prefix = Prefix(session)
    session.prefill([prefix.advance([1, 2, 3, 4], keep=3)])
    assert backend.tape == [1, 2, 3, 4]
    backend.full = False
    session.prefill([prefix.advance([1, 2, 5, 6], keep=3)])
    assert backend.tape == [1, 2, 5, 6]
    backend.full = True  # now it cannot be put back
    session.prefill([prefix.advance([1, 2, 5, 7], keep=3)])
    assert backend.tape == [1, 2, 5, 7]
    assert session.tokens == [[1, 2, 5, 7]]


def test_a_template_that_refuses_the_turns_to_come_keeps_nothing(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any, **__: Any) -> str:
        raise InputError("chat template", expected="other roles", found="these")

    monkeypatch.setattr(Tokenizer, "render", refuses)
    assert lasting(tokenizer, [{"role": "user", "content": "x"}], [1, 2, 3]) == 0
