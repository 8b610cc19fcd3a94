"""What interrupts a wait for a key after Ctrl-C; that it is heard at all is test_terminal.py's."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from threading import main_thread

import pytest

from elastic_runtime.cli import ctrl_c
from elastic_runtime.cli.ctrl_c import heard_while_waiting

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="not on Windows")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int | None, int]]]:
    """The signals that were sent to threads, none of which arrives. Ctrl-C does nothing meanwhile."""
    found: list[tuple[int | None, int]] = []
    before = signal.signal(signal.SIGINT, lambda *_: None)
    monkeypatch.setattr(ctrl_c, "AGAIN", (0.0, 0.0, 0.0))
    monkeypatch.setattr(signal, "pthread_kill", lambda thread, number: found.append((thread, number)))
    yield found
    signal.signal(signal.SIGINT, before)


def wait_for(sent: list[tuple[int | None, int]], count: int) -> None:
    end = time.monotonic() + 30
    while len(sent) < count and time.monotonic() < end:
        time.sleep(0.01)


def test_a_wait_is_interrupted_a_few_times_and_not_for_ever(sent: list[tuple[int | None, int]]) -> None:
    """The next line may be waited for long before all of them are sent."""
    each = len(ctrl_c.AGAIN)
    with heard_while_waiting() as waiting:
        waiting.set()
        for times in (1, 2):
            signal.raise_signal(signal.SIGINT)
            wait_for(sent, times * each)
    assert sent == [(main_thread().ident, signal.SIGURG)] * 2 * each


def test_nothing_is_sent_where_nobody_waits_and_all_is_as_before_in_the_end(
    sent: list[tuple[int | None, int]],
) -> None:
    handler, fd = signal.getsignal(signal.SIGURG), signal.set_wakeup_fd(-1)
    with heard_while_waiting():
        signal.raise_signal(signal.SIGINT)
    assert sent == []
    assert signal.getsignal(signal.SIGURG) == handler
    assert signal.set_wakeup_fd(fd) == -1
