"""Ctrl-C while somebody types a line: heard at once, whenever it is pressed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread, current_thread, main_thread

_AGAIN = 0.05  # seconds


@contextmanager
def heard_while_waiting() -> Iterator[Event]:
    """Within it, and while the event is set, Ctrl-C interrupts `input`.

    CPython asks for signals where readline's wait for a key was interrupted, and nowhere else before the line is
    complete (`readline_until_enter_or_signal`). A signal between a key and the wait for the next one is left until
    then, and the whole line is dropped. Here a thread hears of Ctrl-C from the system's handler, and interrupts the
    wait with a signal that means nothing, again and again: it cannot see whether the wait has begun either.
    """
    waiting = Event()
    if not hasattr(signal, "pthread_kill") or current_thread() is not main_thread():  # Windows has another `input`
        yield waiting
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)  # a handler must not wait
    before, handler = signal.set_wakeup_fd(told, warn_on_full_buffer=False), signal.signal(signal.SIGURG, _nothing)
    waker = Thread(target=_wake, args=(heard, waiting), daemon=True)
    waker.start()
    try:
        yield waiting
    finally:
        waiting.clear()
        signal.set_wakeup_fd(before)
        os.close(told)  # which ends the thread
        waker.join()
        os.close(heard)
        signal.signal(signal.SIGURG, handler)


def _wake(heard: int, waiting: Event) -> None:
    ident = main_thread().ident
    assert ident is not None
    while numbers := os.read(heard, 64):
        while signal.SIGINT in numbers and waiting.is_set():
            signal.pthread_kill(ident, signal.SIGURG)
            time.sleep(_AGAIN)


def _nothing(number: int, frame: object) -> None:
    """A signal that has a handler interrupts a wait; one that has none is ignored, if it is this one."""
