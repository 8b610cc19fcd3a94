"""Signals have another handler for a while, but for those that have one already, and in the main thread alone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from elastic_runtime.signals import handled

NAMES = ("SIGTERM", "SIGHUP", "SIGNOSUCH")


@pytest.fixture(autouse=True)
def _as_under_nohup() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]


def test_what_is_ignored_stays_so_and_all_is_given_back() -> None:
    before = handlers()
    with handled(signal.default_int_handler, *NAMES):
        assert handlers() == [signal.default_int_handler, signal.SIG_IGN]
        with handled(signal.SIG_IGN, *NAMES):
            signal.raise_signal(signal.SIGTERM)
        assert handlers() == [signal.default_int_handler, signal.SIG_IGN]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert handlers() == before


def test_a_handler_of_the_program_around_stays() -> None:
    heard = list[int]()
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with handled(signal.default_int_handler, *NAMES):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_another_thread_says_nothing_of_signals() -> None:
    """It may not: Python raises ValueError."""
    seen = list[object]()

    def work() -> None:
        with handled(signal.default_int_handler, *NAMES):
            seen.extend(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == handlers()
