"""Ctrl-C while somebody types a line: heard at once, whenever it is pressed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread, current_thread, main_thread

#: Seconds from one interruption of the wait to the next: a machine would have to be busy indeed.
AGAIN = (0.01, 0.1, 1.0)


@contextmanager
def heard_while_waiting() -> Iterator[Event]:
    """Within it, and while the event is set, Ctrl-C interrupts `input`.

    CPython asks for signals where readline's wait for a key was interrupted, and nowhere else before the line is
    complete (`readline_until_enter_or_signal`). A signal between a key and the wait for the next one is left until
    then, and the whole line is dropped. Here a thread hears of Ctrl-C from the system's handler, and interrupts the
    wait a little later with a signal that means nothing, some times over: it cannot see whether the wait has begun
    either, nor whether it was needed.
    """
    waiting = Event()
    if not hasattr(signal, "pthread_kill") or current_thread() is not main_thread():  # Windows has another `input`
        yield waiting
        return
    heard, told = os.pipe()
    os.set_blocking(told, False)  # a handler must not wait
    before, handler = signal.set_wakeup_fd(told, warn_on_full_buffer=False), signal.signal(signal.SIGURG, _nothing)
    ended = Event()
    waker = Thread(target=_wake, args=(heard, waiting, ended), daemon=True)
    waker.start()
    try:
        yield waiting
    finally:
        signal.set_wakeup_fd(before)
        ended.set()
        os.close(told)  # what the thread waits for comes to an end
        waker.join()
        os.close(heard)
        signal.signal(signal.SIGURG, handler)


def _wake(heard: int, waiting: Event, ended: Event) -> None:
    ident = main_thread().ident
    assert ident is not None
    while numbers := os.read(heard, 64):
        for seconds in AGAIN if signal.SIGINT in numbers else ():
            if not ended.wait(seconds) and waiting.is_set():
                signal.pthread_kill(ident, signal.SIGURG)


def _nothing(number: int, frame: object) -> None:
    """A signal that has a handler interrupts a wait; one that has none is ignored, if it is this one."""
