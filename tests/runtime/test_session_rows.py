"""Rows that advance independently, on a backend whose logits say exactly what it was fed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_runtime.errors import InputError
from elastic_runtime.generation import Settings, generate
from elastic_runtime.session import Session

V, PADDING = 13, 99


class Tape:
    """A cache that takes all T tokens of a call at `position`, padding too, and a sum that takes the real ones.

    Logits are two of a row's own numbers: its sum, and a value that depends on every cache row below position + length.
    """

    name, vocab_size = "tape", V

    def __init__(self, context: int, max_tokens: int, max_batch: int = 4) -> None:
        self.max_context, self.max_tokens, self.max_batch = context, max_tokens, max_batch
        self.calls: list[int] = []

    def start(self, batch: int) -> None:
        self.cache, self.sums = np.zeros((batch, self.max_context), np.int64), np.zeros(batch, np.int64)

    def call_size(self, wanted: int, most: int) -> int:
        return min(wanted, most, self.max_tokens)

    def call(self, input_ids: Any, position: Any, length: Any) -> Any:
        batch, tokens = input_ids.shape
        assert 1 <= tokens <= self.max_tokens
        assert (position + tokens <= self.max_context).all()
        assert ((length >= 0) & (length <= tokens)).all()
        self.calls.append(tokens)
        logits = np.full((batch, V), -1, np.float32)  # of an idle row they are unspecified
        for row, count in enumerate(length):
            start = position[row]
            self.cache[row, start : start + tokens] = [*input_ids[row, :count], *[PADDING] * (tokens - count)]
            if count:
                seen = self.cache[row, : start + count]
                self.sums[row] += input_ids[row, :count].sum()
                assert seen.sum() == self.sums[row], "a cache row was lost"
                logits[row] = np.roll(np.arange(V), int(self.sums[row]))
                logits[row, 0] = (seen * np.arange(1, len(seen) + 1)).sum() % 1009
        return logits

    def states(self) -> Mapping[str, Any]:
        return {}

    def memory(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None:
        pass


def _alone(context: int, max_tokens: int, ids: list[int]) -> np.ndarray:
    return Session(Tape(context, max_tokens)).prefill([ids])[0] if ids else np.zeros(V, np.float32)


@st.composite
def _feeds(draw: st.DrawFn) -> tuple[int, int, list[list[list[int]]]]:
    """(context, max_tokens, calls of rows of ids) that stay within the context, often exactly up to its end."""
    context, tokens, batch = draw(st.integers(1, 24)), draw(st.integers(1, 24)), draw(st.integers(1, 4))
    left, calls = [context] * batch, []
    for _ in range(draw(st.integers(1, 5))):
        counts = [draw(st.sampled_from(sorted({0, min(1, n), n // 2, n}))) for n in left]
        left = [n - count for n, count in zip(left, counts, strict=True)]
        if any(counts):
            calls.append([draw(st.lists(st.integers(0, V - 1), min_size=n, max_size=n)) for n in counts])
    return context, tokens, calls


@given(_feeds())
def test_every_legal_feed_gives_each_row_what_it_gets_alone(case: tuple[int, int, list[list[list[int]]]]) -> None:
    context, max_tokens, calls = case
    if not calls:
        return
    session = Session(Tape(context, max_tokens), batch=len(calls[0]))
    for rows in calls:
        logits = session.prefill(rows)
        for row, found in enumerate(logits):
            assert found.tolist() == _alone(context, max_tokens, session.tokens[row]).tolist()
    assert session.room == tuple(context - len(row) for row in session.tokens)


def test_a_full_row_beside_one_that_is_fed_is_padded_inside_the_context() -> None:
    session = Session(Tape(32, 32), batch=2)
    session.prefill([[1] * 10, []])
    logits = session.prefill([[2] * 22, [3] * 32])
    assert logits.tolist() == [_alone(32, 32, [1] * 10 + [2] * 22).tolist(), _alone(32, 32, [3] * 32).tolist()]
    assert session.backend.calls == [10, 22, 10]  # type: ignore[attr-defined]


def test_a_row_that_is_given_nothing_keeps_its_logits() -> None:
    session = Session(Tape(32, 4), batch=2)
    first = session.prefill([[1, 2, 3], []])
    assert not first[1].any()
    second = session.prefill([[], [4]])
    assert second[0].tolist() == first[0].tolist()
    stepped = session.decode([5, 6]).copy()
    third = session.prefill([[7], []])
    assert third[1].tolist() == stepped[1].tolist()
    session.reset()
    assert not session.prefill([[1], []])[1].any()


def test_the_last_token_of_a_generation_is_fed_before_what_follows() -> None:
    session = Session(Tape(64, 4))
    first = [piece.id for piece in generate(session, [[1, 2]], Settings(max_new=3))]
    assert session.tokens == [[1, 2, *first[:2]]]
    assert session.pending == (first[2],)
    assert session.room == (64 - 5,)
    logits = session.prefill([[7]])
    assert session.tokens == [[1, 2, *first, 7]]
    assert session.pending == (None,)
    assert logits[0].tolist() == _alone(64, 4, [1, 2, *first, 7]).tolist()


@pytest.mark.parametrize("settings", [{"max_new": 3}, {"max_new": 30, "stop_ids": tuple(range(6, 13))}])
def test_generations_in_a_row_are_one_conversation(settings: dict[str, Any]) -> None:
    session, said = Session(Tape(200, 4), batch=2), [[1, 2], [3]]
    for question in ([[], []], [[5], [6, 7, 8]], [[9, 10], [1]]):
        for row, ids in enumerate(question):
            said[row] += ids
        prompts = question if any(question) else [list(ids) for ids in said]
        for piece in generate(session, prompts, Settings(**settings)):
            assert piece.id is not None
            said[piece.row].append(piece.id)
    assert [[*ids, last] for ids, last in zip(session.tokens, session.pending, strict=True)] == said
    logits = session.step([0, 1])
    assert [row.tolist() for row in logits] == [_alone(200, 4, ids).tolist() for ids in said]


def test_leaving_a_generation_keeps_what_was_given_out() -> None:
    session = Session(Tape(64, 4))
    pieces = generate(session, [[1, 2]], Settings(max_new=9))
    given_out = [next(pieces).id, next(pieces).id]
    pieces.close()
    session.prefill([[3]])
    assert session.tokens == [[1, 2, *given_out, 3]]


def test_decode_feeds_a_pending_token_first_and_reset_forgets_it() -> None:
    session = Session(Tape(8, 4), batch=2)
    session.prefill([[1], [2]])
    session.set_pending(0, 5)
    session.decode([6, 7])
    assert session.tokens == [[1, 5, 6], [2, 7]]
    session.set_pending(1, 5)
    session.set_pending(1, None)
    session.set_pending(0, 4)
    session.reset()
    assert session.pending == (None, None)
    session.prefill([[3], []])
    assert session.tokens == [[3], []]


def test_a_row_that_is_given_nothing_keeps_its_pending_token() -> None:
    session = Session(Tape(8, 4), batch=2)
    session.set_pending(0, 5)
    session.prefill([[], [1]])
    assert session.pending == (5, None)
    assert session.tokens == [[], [1]]


def test_a_pending_token_takes_room() -> None:
    session = Session(Tape(4, 4))
    session.prefill([[1, 2, 3]])
    session.set_pending(0, 5)
    assert session.room == (0,)
    with pytest.raises(InputError, match="sequence: expected at most 4 tokens, the context, found 5"):
        session.prefill([[1]])
    assert (session.tokens, session.pending) == ([[1, 2, 3]], (5,))
    session.step([0])
    session.set_pending(0, 6)
    with pytest.raises(InputError, match="sequence: expected at most 4 tokens, the context, found 5"):
        session.step([0])
    with pytest.raises(InputError, match="token ids: expected 0 to 12, found 13"):
        session.set_pending(0, 13)
    session.set_pending(0, None)
    with pytest.raises(InputError, match="row 0: expected a pending token, found none"):
        session.step([0])


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([2**70], "0 to 12, found 1180591620717411303424"),
        ([-(2**70)], "0 to 12, found -1180591620717411303424"),
        ([1.7], r"a sequence of integers, found 1\.7"),
        ([1.0], r"a sequence of integers, found 1\.0"),
        ([float("nan")], "a sequence of integers, found nan"),
        ([True], "a sequence of integers, found True"),
        (np.array([True]), "a sequence of integers, found True"),
        (np.array([1.0]), r"a sequence of integers, found 1\.0"),
        (np.array([[1]]), r"a sequence of integers, found \[1\]"),
        ("1", "a sequence of integers, found 1"),
        ([None], "a sequence of integers, found None"),
        (7, "a sequence of integers, found 7"),
        (np.array([2**64 - 1], np.uint64), "0 to 12, found 18446744073709551615"),
    ],
)
def test_what_is_no_id_is_refused(ids: Any, found: str) -> None:
    session = Session(Tape(8, 4))
    for work in (session.decode, lambda ids: session.prefill([ids])):
        with pytest.raises(InputError, match=f"token ids: expected {found}"):
            work(ids)
    assert session.tokens == [[]]


def test_numpys_integers_are_ids() -> None:
    session = Session(Tape(8, 4))
    session.prefill([np.array([1, 2], np.uint8)])
    session.prefill([(np.int32(3),)])
    session.decode(np.array([4]))
    assert session.tokens == [[1, 2, 3, 4]]
    assert all(type(token) is int for token in session.tokens[0])
