"""A call that is interrupted, or fails, after the engine has run: its states have moved, and nobody knows how far."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.generation import Settings, generate
from elastic_runtime.prefix import Prefix
from elastic_runtime.session import Session
from sum_engine import SumRig

TOLD = (
    "session: expected no call under way, and none that was left in the middle, found one. Reset it and feed its "
    "tokens again, or restore a snapshot."
)
ERRORS = [KeyboardInterrupt(), BuildError("card 0", expected="luck", found="none")]


@pytest.fixture(params=ERRORS, ids=["Ctrl-C", "the card"])
def failing_once(rig: SumRig, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Has the next reading of logits fail."""
    download, errors = rig.device.download, list[BaseException]()

    def fail(*given: Any) -> None:
        if errors:
            raise errors.pop()
        download(*given)

    monkeypatch.setattr(rig.device, "download", fail)
    return lambda: errors.append(request.param)


def _left(session: Session, call: Callable[[], object]) -> None:
    with pytest.raises((KeyboardInterrupt, BuildError)):
        call()
    assert not session.whole


def test_a_session_does_not_go_on_from_states_that_nobody_knows(rig: SumRig, failing_once: Callable[[], None]) -> None:
    session = Session(rig.backend)
    wanted = np.array(session.prefill([[1, 2, 3, 4]]))
    session.reset()
    session.prefill([[1, 2]])
    kept = session.snapshot()
    failing_once()
    _left(session, lambda: session.decode([3]))
    session.set_pending(0, 3)
    for go_on in (
        lambda: session.decode([3]),
        lambda: session.prefill([[3]]),
        lambda: session.step([0]),
        lambda: next(generate(session, [[3]])),
        lambda: next(generate(session, [[]])),
        session.snapshot,
    ):
        with pytest.raises(InputError, match=TOLD):
            go_on()
    assert session.tokens == [[1, 2]]  # what is certain
    session.restore(kept)
    assert session.whole
    np.testing.assert_array_equal(session.prefill([[3, 4]]), wanted)
    session.reset()
    failing_once()
    _left(session, lambda: session.prefill([[1, 2]]))
    session.reset()
    np.testing.assert_array_equal(session.prefill([[1, 2, 3, 4]]), wanted)


class Interrupted:
    """What a snapshot says, where Ctrl-C comes up just then."""

    def __iter__(self) -> Iterator[None]:
        raise KeyboardInterrupt


def test_a_restore_that_was_interrupted_is_no_place_to_go_on_from(rig: SumRig) -> None:
    """The states are the snapshot's by then, and the transcript is not."""
    session = Session(rig.backend)
    session.prefill([[1, 2]])
    kept = session.snapshot()
    session.prefill([[3]])
    with pytest.raises(KeyboardInterrupt):
        session.restore(replace(kept, pending=Interrupted()))  # type: ignore[arg-type]
    assert not session.whole
    with pytest.raises(InputError, match=TOLD):
        session.decode([4])
    session.restore(kept)
    assert session.whole


def test_a_restore_that_is_refused_changes_nothing(rig: SumRig, failing_once: Callable[[], None]) -> None:
    session = Session(rig.backend)
    session.prefill([[1, 2]])
    closed = session.snapshot()
    closed.close()
    with pytest.raises(InputError):
        session.restore(closed)
    assert session.whole
    failing_once()
    _left(session, lambda: session.decode([3]))
    with pytest.raises(InputError):
        session.restore(closed)
    assert not session.whole


def test_another_thread_does_not_come_between(rig: SumRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls at once would read and write the same buffers."""
    session, download, heard = Session(rig.backend), rig.device.download, list[str]()

    def meanwhile(*given: Any) -> None:
        with pytest.raises(InputError) as caught:
            session.prefill([[4]])
        heard.append(str(caught.value))
        download(*given)

    monkeypatch.setattr(rig.device, "download", meanwhile)
    session.prefill([[1, 2]])
    assert heard == [TOLD]
    assert session.whole
    assert session.tokens == [[1, 2]]


def test_a_generation_that_was_interrupted_is_over(rig: SumRig, failing_once: Callable[[], None]) -> None:
    session = Session(rig.backend)
    pieces = generate(session, [[1, 2]], Settings(max_new=8))
    first = [next(pieces).id, next(pieces).id]
    failing_once()
    _left(session, lambda: next(pieces))
    with pytest.raises(InputError, match=TOLD):
        generate(session, [[5]])
    session.reset()
    again = [piece.id for piece in generate(session, [[1, 2]], Settings(max_new=2))]
    assert again == first


def test_a_conversation_begins_anew_by_itself(rig: SumRig, failing_once: Callable[[], None]) -> None:
    session = Session(rig.backend)
    prefix = Prefix(session)
    assert prefix.advance([1, 2, 3, 4], keep=2) == [3, 4]
    failing_once()
    _left(session, lambda: session.prefill([[3, 4]]))
    wanted = Session(rig.backend).prefill([[1, 2, 3, 4, 5]])[0].argmax()
    assert session.prefill([prefix.advance([1, 2, 3, 4, 5])])[0].argmax() == wanted
