"""Snapshots of sessions on the demo, in main memory and on a stand-in for a card: as if one had never left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from card_memory import ApartMemory, apart
from elastic_runtime.backend import Origin
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.generation import Settings, generate
from elastic_runtime.ort import open_onnx as opening
from elastic_runtime.ort.open_onnx import open_onnx
from elastic_runtime.sampling import Sampling
from elastic_runtime.session import Session

PROMPT = [(7 * i) % 256 for i in range(90)]
CONTEXT = 600
Make = Callable[..., Session]


@pytest.fixture(params=["cpu", "gpu"])
def make(demo_bundle: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    bundle, opened = Bundle.open(demo_bundle), list[Session]()

    def session(batch: int = 1, context: int = CONTEXT, budget: str = "small") -> Session:
        backend = open_onnx(bundle, bundle.budget(budget), context=context, max_tokens=32, threads=1)
        opened.append(Session(backend, batch=batch))
        return opened[-1]

    with apart() as crossed:
        if request.param == "gpu":
            monkeypatch.setattr(opening, "_memory", lambda place: ApartMemory())
        session.crossed = crossed  # type: ignore[attr-defined]
        yield session
        for each in opened:
            each.close()


def _ids(session: Session, count: int = 12, **sampling: Any) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in range(session.batch)]
    settings = Settings(max_new=count, sampling=Sampling(**sampling))
    for piece in generate(session, rows, settings):
        assert piece.id is not None
        rows[piece.row].append(piece.id)
    return rows


def _bits(session: Session) -> dict[str, Any]:
    """All that a session is; of caches, the rows that are used."""
    rows = max(map(len, session.tokens))
    cut = {n: s[:, :, :rows] if "cache" in n else s for n, s in session.backend.states().items()}
    states = {f"{name} {value.dtype} {value.shape}": value.tobytes() for name, value in cut.items()}
    return states | {
        "logits": session.logits.tobytes(),
        "tokens": [*map(tuple, session.tokens)],
        "pending": session.pending,
    }


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("rows", [[PROMPT], [PROMPT[:50], PROMPT[5:6], []]], ids=["one row", "ragged rows"])
def test_a_restored_session_is_bit_for_bit_one_that_never_left(make: Make, rows: list[list[int]], device: Any) -> None:
    session = make(batch=len(rows))
    session.prefill(rows)
    session.set_pending(0, 17)
    saved, then = session.snapshot(device=device), _bits(session)
    assert saved.device == (device or session.backend.device)
    calls = [[[5] * 40, *[[6]] * (len(rows) - 1)], [[i + 1] for i in range(len(rows))]]
    wanted = [session.prefill(call).tobytes() for call in calls]
    end = _bits(session)
    for _ in range(2):  # nothing of the snapshot has changed after it was used
        session.reset()
        session.prefill([[9, 8, 7] * 100] * len(rows))  # caches grow beyond those of then
        session.restore(saved)
        assert _bits(session) == then
        assert [session.prefill(call).tobytes() for call in calls] == wanted
        assert _bits(session) == end


@pytest.mark.parametrize(("count", "before"), [(90, 2), (300, 2), (90, 300)])
def test_another_session_of_the_same_budget_takes_it(make: Make, count: int, before: int) -> None:
    """Its caches get as many rows as those had: onnxruntime adds up in another order over more."""
    first, second = make(), make()
    first.prefill([(PROMPT * 4)[:count]])
    saved = first.snapshot()
    second.prefill([[1] * before])
    second.restore(saved)
    shapes = [{name: s.shape for name, s in session.backend.states().items()} for session in (first, second)]
    assert shapes[0] == shapes[1]
    assert _bits(second) == _bits(first)
    assert _ids(second, temperature=0.8, seed=3) == _ids(first, temperature=0.8, seed=3)


def test_a_session_that_was_fed_nothing_is_saved_too(make: Make) -> None:
    session = make()
    saved = session.snapshot()
    wanted = session.prefill([PROMPT]).tobytes()
    session.restore(saved)
    assert session.tokens == [[]]
    assert not session.logits.any()
    assert session.prefill([PROMPT]).tobytes() == wanted


def test_its_memory_is_the_states_the_rows_used_and_the_logits(make: Make, demo_bundle: Path) -> None:
    """Caches are float32 under onnxruntime where the budget's numbers are of 16 bits: twice as much."""
    budget, session = Bundle.open(demo_bundle).budget("small"), make(batch=2)
    for count in (1, 30, 300):
        session.reset()
        session.prefill([PROMPT[:1], (PROMPT * 4)[:count]])
        states = sum(state.nbytes for name, state in session.backend.states().items() if "cache" not in name)
        states += 2 * 2 * count * budget.kv_bytes_per_token
        for device in (None, "cpu"):
            assert session.snapshot(device=device).nbytes == states + 4 * 2 * session.backend.vocab_size


def test_on_a_card_only_logits_and_tokens_cross(make: Make) -> None:
    session, crossed = make(), make.crossed  # type: ignore[attr-defined]
    if session.backend.device == "cpu":
        pytest.skip("it is main memory")
    session.prefill([PROMPT])
    crossed.clear()
    saved = session.snapshot()
    session.reset()
    session.restore(saved)
    assert crossed == {}
    states = len(session.backend.states())
    crossed.clear()
    there = session.snapshot(device="cpu")
    session.restore(there)
    assert crossed == {"read": states, "written": states}


def test_what_it_does_not_fit_is_named_and_nothing_changes(make: Make) -> None:
    session = make(batch=2)
    session.prefill([PROMPT, PROMPT[:3]])
    saved = session.snapshot()
    before = _bits(session)
    of_another = Origin("another", saved.origin.budget)
    for wrong, text in [
        (replace(saved, origin=of_another), f"snapshot's bundle: expected {saved.origin.bundle}, found another."),
        (replace(saved, backend="tensorrt-rtx"), "snapshot's backend: expected onnxruntime, found tensorrt-rtx."),
        (make(2, budget="large").snapshot(), "snapshot's budget: expected small, found large."),
        (make(2, 500).snapshot(), "snapshot's context: expected 600, found 500."),
        (make(1).snapshot(), "snapshot's batch: expected 2, found 1."),
    ]:
        with pytest.raises(InputError) as caught:
            session.restore(wrong)
        assert str(caught.value) == f"{text} Restore it where it was taken, or prefill again."
    with pytest.raises(InputError, match="snapshot: expected a Snapshot, found dict"):
        session.restore({})  # type: ignore[arg-type]
    saved.close()
    with pytest.raises(InputError, match=r"snapshot: expected states that this backend saved.*found none, for it was"):
        session.restore(saved)
    assert _bits(session) == before


def test_states_of_other_shapes_are_refused_where_nothing_else_tells_them_apart(make: Make) -> None:
    session, other = make(budget="large"), make(budget="medium")
    assert session.backend.states().keys() == other.backend.states().keys()
    session.prefill([PROMPT])
    before = _bits(session)
    forged = replace(other.snapshot(), origin=session.backend.origin)
    with pytest.raises(
        InputError, match=r"snapshot: expected states that this backend saved.*, found those of another m"
    ):
        session.restore(forged)
    assert _bits(session) == before


def test_devices_and_closed_sessions_are_refused(make: Make) -> None:
    session = make()
    session.prefill([[1]])
    saved = session.snapshot()
    with pytest.raises(InputError, match=r"device: expected cpu.*, found tpu"):
        session.snapshot(device="tpu")  # type: ignore[arg-type]
    session.close()
    for work in (session.snapshot, lambda: session.restore(saved)):
        with pytest.raises(InputError, match="onnxruntime backend: expected an open one, found one that was closed"):
            work()


def test_a_card_that_fails_on_the_way_leaves_a_session_that_begins_anew(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make()
    session.prefill([PROMPT])
    saved = session.snapshot()

    def fails(_: Any) -> None:
        raise BuildError("card 0", expected="luck", found="none")

    with monkeypatch.context() as patch:
        patch.setattr(session.backend, "load", fails)
        with pytest.raises(BuildError, match="luck"):
            session.restore(saved)
    assert session.tokens == [[]]
    assert not any(state.any() for state in session.backend.states().values())


def test_a_generation_at_work_is_not_saved_and_one_that_was_left_is(make: Make) -> None:
    session = make()
    pieces = generate(session, [PROMPT])
    given = [next(pieces).id, next(pieces).id]
    with pytest.raises(InputError) as caught:
        session.snapshot()
    assert str(caught.value) == (
        "snapshot: expected a session between generations, found one at work. Run the iterator to its end, or close it."
    )
    pieces.close()  # type: ignore[attr-defined]
    saved = session.snapshot()
    assert [*saved.tokens[0], *saved.pending] == [*PROMPT, *given]


def test_a_generation_over_which_a_snapshot_was_restored_is_over(make: Make) -> None:
    session = make()
    session.prefill([PROMPT])
    saved = session.snapshot()
    pieces = generate(session, [[1]])
    next(pieces)
    session.restore(saved)
    with pytest.raises(
        InputError, match="generation: expected the session as it left it, found one that was fed, reset"
    ):
        next(pieces)
    assert session.tokens == [PROMPT]
