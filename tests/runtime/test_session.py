"""Sessions on the demo: cuts do not matter, rows are independent, what is wrong is refused before it is fed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.ort import onnx_memory
from elastic_runtime.ort.onnx_memory import HostBuffer
from elastic_runtime.ort.open_onnx import open_onnx
from elastic_runtime.session import Session

PROMPT = [(7 * i) % 256 for i in range(90)]


@pytest.fixture(scope="module")
def session(demo_bundle: Path) -> Iterator[Session]:
    bundle = Bundle.open(demo_bundle)
    with Session(open_onnx(bundle, bundle.budget("small"), context=400, max_tokens=32, threads=1)) as session:
        yield session


@pytest.fixture(autouse=True)
def _fresh(session: Session) -> None:
    session.backend.max_tokens = 32
    for batch in (2, 1):  # another batch: the caches have their first size, whatever the test before has grown
        session.reset(batch)


def _greedy(session: Session, logits: np.ndarray, count: int) -> list[int]:
    ids = []
    for _ in range(count):
        ids.append(int(logits[0].argmax()))
        logits = session.decode(ids[-1:])
    return ids


def test_how_a_prompt_was_cut_does_not_matter(session: Session) -> None:
    whole = session.prefill([PROMPT])[0]
    for pieces in ([1] * 90, [89, 1], [3, 40, 47]):
        session.reset()
        cut = [PROMPT[sum(pieces[:i]) : sum(pieces[: i + 1])] for i in range(len(pieces))]
        for piece in cut:
            logits = session.prefill([piece])
        np.testing.assert_allclose(logits[0], whole, rtol=0, atol=2e-5 * np.abs(whole).max())
    for tokens in (1, 7, 90):
        session.backend.max_tokens = tokens
        session.reset()
        np.testing.assert_allclose(session.prefill([PROMPT])[0], whole, rtol=0, atol=2e-5 * np.abs(whole).max())


def test_rows_of_a_ragged_batch_are_those_of_single_sessions(session: Session) -> None:
    prompts = [PROMPT[:50], PROMPT[5:6], PROMPT[20:85]]
    single = []
    for prompt in prompts:
        session.reset(1)
        logits = session.prefill([prompt])
        single.append([int(logits[0].argmax()), *_greedy(session, logits, 6)])
    session.reset(3)
    logits = session.prefill(prompts)
    rows = [[int(row.argmax())] for row in logits]
    for _ in range(6):
        ids = [int(row.argmax()) for row in logits]
        for row, token in zip(rows, ids, strict=True):
            row.append(token)
        logits = session.decode(ids)
    assert rows == single


def test_a_row_that_is_given_nothing_stays_as_it_was(session: Session) -> None:
    session.reset(2)
    kept = session.prefill([PROMPT[:9], PROMPT[:5]])[1].copy()
    before = session.backend.states()
    logits = session.prefill([[1, 2, 3], []])
    after = session.backend.states()
    assert np.array_equal(logits[1], kept)
    for name in before:
        if "cache" not in name:
            assert np.array_equal(before[name][1], after[name][1])
            assert not np.array_equal(before[name][0], after[name][0])
        else:
            assert np.array_equal(before[name][1][:, :5], after[name][1][:, :5])


def test_caches_grow_and_reset_forgets(session: Session) -> None:
    long = (PROMPT * 5)[:399]
    logits = session.prefill([long]).copy()
    assert session.backend.states()["key_cache.0"].shape[2] == 400
    session.reset()
    assert session.tokens == [[]]
    assert not any(state.any() for name, state in session.backend.states().items() if "cache" not in name)
    assert np.array_equal(session.prefill([long]), logits)


def test_a_full_context_takes_no_more(session: Session) -> None:
    session.prefill([(PROMPT * 5)[:400]])
    assert session.room == (0,)
    with pytest.raises(InputError) as caught:
        session.decode([1])
    assert str(caught.value) == (
        "sequence: expected at most 400 tokens, the context, found 401. "
        "Shorten it, or open the bundle with a larger context."
    )


def test_a_full_row_does_not_limit_the_others(session: Session) -> None:
    session.reset(2)
    full = session.prefill([(PROMPT * 5)[:400], PROMPT[:4]])[0].copy()
    logits = session.prefill([[], PROMPT[4:40]])
    assert np.array_equal(logits[0], full)
    session.reset(1)
    np.testing.assert_allclose(logits[1], session.prefill([PROMPT[:40]])[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([[0, 264]], "token ids: expected 0 to 263, found 264. Encode the text with the tokenizer of this bundle."),
        ([[-1]], "token ids: expected 0 to 263, found -1. Encode the text with the tokenizer of this bundle."),
        ([[]], "prompt: expected at least one token, found none. Begin with the id that texts begin with."),
        (
            [[1], [2]],
            "prefill: expected ids for 1 rows, found 2 rows. "
            "Give every row a list, an empty one where it gets nothing.",
        ),
        ([[1.5]], "token ids: expected a sequence of integers, found 1.5. Encode text with Tokenizer first."),
        (
            [[1] * 401],
            "prompt: expected at most 400 tokens, the context, found 401. "
            "Shorten it, or open the bundle with a larger context.",
        ),
    ],
)
def test_refuses_before_anything_is_fed(session: Session, rows: list[list[int]], text: str) -> None:
    with pytest.raises(InputError) as caught:
        session.prefill(rows)
    assert str(caught.value) == text
    assert session.tokens == [[]]


def test_refuses_batches_beyond_the_backend(session: Session) -> None:
    with pytest.raises(InputError, match=r"batch: expected 1 to 64, found 65\. Take fewer rows"):
        session.reset(65)
    for batch in (0, True, "2"):
        with pytest.raises(InputError, match=rf"batch: expected 1 to 64, found {batch}\. Take"):
            session.reset(batch)  # type: ignore[arg-type]
    with pytest.raises(
        InputError, match=r"decode: expected one id for each of 1 rows, found .* Give each row one, or use prefill"
    ):
        session.decode([1, 2])


def test_stored_weights_give_the_same_as_wide_ones(session: Session, demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    wide = session.prefill([PROMPT])
    with Session(open_onnx(bundle, bundle.budget("small"), context=400, weights="stored", threads=1)) as stored:
        np.testing.assert_allclose(stored.prefill([PROMPT]), wide, rtol=0, atol=1e-4)
        assert stored.backend.memory()["weights"] * 2 == session.backend.memory()["weights"]


@pytest.mark.parametrize("row", [-1, 1, True, "0"])
def test_a_pending_token_is_of_a_row_that_there_is(session: Session, row: int) -> None:
    for token in (5, None):
        with pytest.raises(InputError) as caught:
            session.set_pending(row, token)
        assert str(caught.value) == f"row: expected 0 to 0, found {row}. Name a row of the session."
    assert session.pending == (None,)


def test_a_closed_session_says_so_each_time(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    closed = Session(open_onnx(bundle, bundle.budget("small"), context=64, threads=1))
    closed.close()
    told = "onnxruntime backend: expected an open one, found one that was closed. Open a new session."
    for use in 2 * (lambda: closed.prefill([[5]]), closed.reset, closed.snapshot):
        with pytest.raises(InputError) as caught:
            use()
        assert str(caught.value) == told


@pytest.mark.parametrize("again", ["reset", "restore"])
@pytest.mark.parametrize("step", [lambda s: s.reset(64), lambda s: s.prefill([PROMPT * 4])], ids=["reset", "grow"])
def test_where_memory_ran_out_a_session_begins_again_once_there_is_some(
    session: Session, monkeypatch: pytest.MonkeyPatch, step: Callable[[Session], object], again: str
) -> None:
    wanted = session.prefill([PROMPT]).copy()
    session.reset()
    saved, made = session.snapshot(), list[object]()

    def scarce(array: np.ndarray) -> HostBuffer:
        made.append(array)
        if len(made) > 3:
            raise MemoryError
        return HostBuffer(array)

    with monkeypatch.context() as patch:
        patch.setattr(onnx_memory, "HostBuffer", scarce)
        with pytest.raises(BuildError, match=r"^memory: expected room for \d+ bytes more, found none\. Close other"):
            step(session)
    assert not session.whole
    session.reset() if again == "reset" else session.restore(saved)
    assert np.array_equal(session.prefill([PROMPT]), wanted)
