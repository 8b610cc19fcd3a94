"""Generation: what ends it and how, batches, and text; on a backend whose next token is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_runtime.errors import InputError
from elastic_runtime.generation import Piece, Settings, generate
from elastic_runtime.sampling import Sampling
from elastic_runtime.session import Session
from elastic_runtime.text.tokenizer import Tokenizer


class Counting:
    """A backend whose most likely next token is the sum of all tokens of a row and 1, modulo 264."""

    name, max_tokens, max_batch, vocab_size = "counting", 4, 4, 264

    def __init__(self, context: int = 64) -> None:
        self.max_context = context

    def start(self, batch: int) -> None:
        self.sums = np.ones(batch, np.int64)

    def call_size(self, wanted: int, most: int) -> int:
        return min(wanted, most, self.max_tokens)

    def call(self, input_ids: Any, position: Any, length: Any) -> Any:
        assert (position + input_ids.shape[1] <= self.max_context).all()
        for row, count in enumerate(length):
            self.sums[row] += input_ids[row, :count].sum()
        logits = np.zeros((len(self.sums), self.vocab_size), np.float32)
        logits[np.arange(len(self.sums)), self.sums % self.vocab_size] = 9
        return logits

    def states(self) -> Mapping[str, Any]:
        return {}

    def memory(self) -> Mapping[str, int]:
        return {}

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def tokenizer(demo_bundle: Path) -> Tokenizer:
    return Tokenizer(demo_bundle)


def _run(prompts: list[list[int]], context: int = 64, **settings: Any) -> list[Piece]:
    session = Session(Counting(context), batch=len(prompts))
    return list(generate(session, prompts, Settings(**settings)))


def test_ends_after_the_tokens_that_were_asked_for() -> None:
    pieces = _run([[1, 2]], max_new=3)
    assert [(p.id, p.finish) for p in pieces] == [(4, None), (8, None), (16, "length")]


def test_ends_at_a_stop_token_which_it_gives_out() -> None:
    assert [(p.id, p.finish) for p in _run([[1, 2]], stop_ids=(8,))] == [(4, None), (8, "stop_token")]


def test_ends_at_the_end_of_the_context_with_one_token_more_than_was_fed() -> None:
    pieces = _run([[1, 2, 3]], context=5)
    assert [(p.id, p.finish) for p in pieces] == [(7, None), (14, None), (28, "context")]


def test_rows_end_by_themselves() -> None:
    pieces = _run([[1], [3], [1, 1]], max_new=4, stop_ids=(8,))
    rows = [[(p.id, p.finish) for p in pieces if p.row == row] for row in range(3)]
    assert rows[0] == [(2, None), (4, None), (8, "stop_token")]
    assert rows[1] == [(4, None), (8, "stop_token")]
    assert rows[2] == [(3, None), (6, None), (12, None), (24, "length")]


def test_a_row_at_the_end_of_its_context_does_not_stop_the_others() -> None:
    pieces = _run([[1] * 5, [1]], context=6, max_new=5)
    assert [p.finish for p in pieces if p.row == 0][-1] == "context"
    assert len([p for p in pieces if p.row == 1]) == 5


def test_continues_where_the_session_stands() -> None:
    session = Session(Counting())
    list(generate(session, [[1, 2]], Settings(max_new=2)))
    assert session.tokens == [[1, 2, 4]]
    assert session.pending == (8,)  # the last token was given out and not fed
    assert next(generate(session, [[3]], Settings())).id == 19


def test_leaving_the_iterator_feeds_nothing_more() -> None:
    session = Session(Counting())
    pieces = generate(session, [[1, 2]])
    next(pieces)
    pieces.close()
    assert session.tokens == [[1, 2]]


@pytest.mark.parametrize("begun", [0, 1, 2])
def test_a_generation_does_not_go_on_in_a_session_that_another_has_fed(begun: int) -> None:
    """Both would be wrong from then on, and no token would show it."""
    session = Session(Counting(), batch=2)
    first = generate(session, [[1, 2], [3]], Settings(max_new=4))
    for _ in range(begun):
        next(first)
    second = generate(session, [[5], [6]], Settings(max_new=4))
    pieces = [next(second)]
    with pytest.raises(InputError, match=r"^generation: expected the session as it left it, found one that was fed"):
        next(first)
    pieces += second
    alone = Session(Counting(), batch=2)
    begin = generate(alone, [[1, 2], [3]], Settings(max_new=4))
    for _ in range(begun):
        next(begin)
    assert pieces == list(generate(alone, [[5], [6]], Settings(max_new=4)))


def test_a_generation_that_has_ended_asks_nothing_of_the_session() -> None:
    session = Session(Counting())
    first = generate(session, [[1, 2]], Settings(max_new=1))
    assert next(first).finish == "length"
    list(generate(session, [[5]], Settings(max_new=1)))
    assert list(first) == []


def test_text_stops_inside_a_token_and_is_streamed(tokenizer: Tokenizer) -> None:
    session = Session(Counting())  # 65, then twice as much each time: A, \x82, \x04 ...
    pieces = list(generate(session, [[64]], Settings(max_new=1), tokenizer))
    assert pieces == [Piece(0, 65, "A", "length")]
    session.reset()
    assert list(generate(session, [[64]], Settings(stop_texts=("A",)), tokenizer)) == [Piece(0, 65, "", "stop_text")]


def test_held_back_text_comes_at_the_end(tokenizer: Tokenizer) -> None:
    session = Session(Counting())
    pieces = list(generate(session, [[64]], Settings(max_new=1, stop_texts=("AB",)), tokenizer))
    assert pieces == [Piece(0, 65, "A", "length")]
    session.reset()
    pieces = list(generate(session, [[0xE1]], Settings(max_new=1), tokenizer))
    assert pieces == [Piece(0, 0xE2, "\N{REPLACEMENT CHARACTER}", "length")]


def test_the_same_seed_gives_the_same_ids() -> None:
    drawn = [[p.id for p in _run([[1]], sampling=Sampling(50.0, seed=s), max_new=9)] for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_no_prompts_are_no_generation() -> None:
    session = Session(Counting())
    with pytest.raises(InputError, match=r"^prompts: expected a list of ids for every row, found \[\]\. Give each row"):
        generate(session, [])


@pytest.mark.parametrize(
    ("prompts", "settings", "text"),
    [
        ([[1] * 65], {}, "prompt: expected at most 64 tokens, the context, found 65"),
        ([[]], {}, "prompt: expected at least one token, found none."),
        ([[1], []], {}, "prompt 1: expected at least one token, found none."),
        ([72, 101], {}, "prompts: expected a list of ids for every row, found [72, 101]."),
        ([[1]], {"stop_texts": "abc"}, "stop texts: expected several texts, found abc."),
        ([[1]], {"stop_ids": 5}, "stop tokens: expected several ids, found 5."),
        ([[1]], {"max_new": 0}, "max_new: expected at least 1, found 0."),
        ([[1]], {"max_new": float("nan")}, "max_new: expected at least 1, found nan."),
        ([[1]], {"max_new": True}, "max_new: expected at least 1, found True."),
        ([[1]], {"stop_ids": (264,)}, "stop token: expected an id from 0 to 263, found 264."),
        ([[1]], {"stop_ids": (1.0,)}, "stop token: expected an id from 0 to 263, found 1.0."),
        ([[1]], {"stop_texts": ("x",)}, "stop texts: expected a tokenizer, to compare texts, found none."),
        ([[264]], {}, "token ids: expected 0 to 263, found 264."),
    ],
)
def test_refuses(prompts: list[list[int]], settings: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        _run(prompts, **settings)
    assert str(caught.value).startswith(text)


def test_of_two_generations_on_a_session_the_older_one_ends_with_an_error() -> None:
    session = Session(Counting())
    older = generate(session, [[1, 2]])
    assert next(older).id == 4
    newer = generate(session, [[5]])
    got = [next(newer).id]
    with pytest.raises(InputError) as caught:
        next(older)
    assert str(caught.value) == (
        "generation: expected the session as it left it, found one that was fed, reset or restored since, or on which "
        "another generation began. Finish one before the next, or open a session for each."
    )
    got += [next(newer).id, next(newer).id]  # it has lost nothing
    fresh = generate(Session(Counting()), [[1, 2, 4, 5]])
    assert got == [next(fresh).id for _ in range(3)]


def test_an_older_generation_that_has_not_begun_ends_so_too() -> None:
    session = Session(Counting(), batch=2)
    older, newer = generate(session, [[1], [2]]), generate(session, [[3], [4]])
    assert [next(newer).row, next(newer).row] == [0, 1]
    with pytest.raises(InputError, match="generation: expected the session as it left it"):
        next(older)


@pytest.mark.parametrize("move", [lambda s: s.prefill([[1]]), lambda s: s.decode([1]), lambda s: s.reset()])
def test_a_generation_on_a_session_that_was_moved_ends_with_an_error(move: Any) -> None:
    session = Session(Counting())
    pieces = generate(session, [[1, 2]])
    next(pieces)
    move(session)
    with pytest.raises(InputError, match="generation: expected the session as it left it"):
        next(pieces)


def test_between_two_rows_of_a_step_a_moved_session_is_found_too() -> None:
    session = Session(Counting(), batch=2)
    pieces = generate(session, [[1], [2]])
    assert next(pieces).row == 0
    session.reset()
    with pytest.raises(InputError, match="generation: expected the session as it left it"):
        next(pieces)
