"""What is seen of a run: a line for each finished step, and of long ones how far they are."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from elastic_export.cli.terminal import ConsoleProgress, how_far
from elastic_export.progress import Gauge, folder_gauge

GIB = 1 << 30


class Heard(ConsoleProgress):
    """Tells when a line about the running step has come."""

    def __init__(self, *, terminal: bool, every: float) -> None:
        self.file, self.texts, self.shown = io.StringIO(), list[str](), threading.Event()
        super().__init__(Console(file=self.file, force_terminal=terminal, soft_wrap=True), every=every)

    def show(self, text: str) -> None:
        super().show(text)
        self.texts.append(text)
        self.shown.set()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_long_step_says_how_far_it_is(terminal: bool) -> None:
    progress, done = Heard(terminal=terminal, every=0.01), [GIB]
    with progress.step("verify"):
        assert progress.shown.wait(60)
        assert progress.texts[0].startswith("verify: 0 s so far")
        progress.watch(Gauge(4 * GIB, lambda: done[0]))
        done[0] = 2 * GIB
        while not progress.texts[-1].startswith("verify: 50 %, 2.0 GiB of 4.0 GiB, "):
            progress.shown.clear()
            assert progress.shown.wait(60)
        assert progress.texts[-1].endswith(" left")
    count, text = len(progress.texts), progress.file.getvalue()
    assert threading.active_count() == 1 or all(thread.name != "progress" for thread in threading.enumerate())
    assert len(progress.texts) == count, "nothing more is said of a step that has ended"
    assert "verify" in text.splitlines()[-1]
    assert ("50 %" in text) or terminal


def test_a_short_step_is_one_line_and_a_failed_one_none() -> None:
    progress = Heard(terminal=False, every=60)
    with progress.step("onnx", "small"):
        progress.watch(Gauge(0, lambda: 0))
    with pytest.raises(ZeroDivisionError), progress.step("verify"):
        raise ZeroDivisionError
    [line] = progress.file.getvalue().splitlines()
    assert line.split() == ["onnx", "small", "0.0", "s"]


def test_a_gauge_that_fails_for_a_moment_ends_nothing() -> None:
    progress, calls = Heard(terminal=False, every=0.01), iter([0])

    def done() -> int:
        if next(calls, None) is None and not progress.shown.is_set() and len(fails) < 3:
            fails.append(1)
            raise FileNotFoundError
        return GIB

    fails = list[int]()
    with progress.step("onnx"):
        progress.watch(Gauge(2 * GIB, done))
        assert progress.shown.wait(60)
    assert "onnx" in progress.file.getvalue()


@pytest.mark.parametrize(
    ("done", "total", "rate", "text"),
    [
        (10 * GIB, 25 * GIB, GIB, "40 %, 10.0 GiB of 25.0 GiB, 1.0 GiB/s, about 15 s left"),
        (GIB, 100 * GIB, GIB / 10, "1 %, 1.0 GiB of 100.0 GiB, 102.4 MiB/s, about 16 min left"),
        (0, GIB, 0.0, "7 s so far"),
        (0, 0, 0.0, "7 s so far"),
        (GIB, GIB, GIB, "7 s so far"),
        (2 * GIB, GIB, GIB, "7 s so far"),  # the total was an estimate
        (GIB, 2 * GIB, 0.0, "7 s so far"),
    ],
)
def test_what_is_left_follows_from_the_rate(done: int, total: int, rate: float, text: str) -> None:
    assert how_far(done, total, rate, 7.2) == text


def test_a_folder_tells_how_much_is_in_it(tmp_path) -> None:
    gauge = folder_gauge(tmp_path, 100)
    (tmp_path / "below").mkdir()
    assert gauge.done() == 0
    (tmp_path / "shard").write_bytes(b"x" * 40)
    assert (gauge.done(), gauge.total) == (40, 100)
