"""`elastic-run --chat` on a terminal, typed at: what stands before a line, help, history, Ctrl-C and Ctrl-D."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pty = pytest.importorskip("pty")
pytest.importorskip("readline")

UP, CTRL_C, CTRL_D = "\x1b[A", "\x03", "\x04"


class Typist:
    """A program on a terminal of its own, what it shows, and the keys that are pressed there."""

    def __init__(self, arguments: list[str], out: Path | None = None) -> None:
        self._keys, terminal = pty.openpty()
        self._seen, self._shown = "", 0
        # The first terminal that the leader of a session opens is its own, where Ctrl-C is a signal.
        shell = ["sh", "-c", 'exec "$@" < "$0"', os.ttyname(terminal)]
        self.process = subprocess.Popen(
            [*shell, sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=terminal if out is None else os.open(out, os.O_CREAT | os.O_WRONLY),
            stderr=terminal,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"},
        )
        os.close(terminal)

    def press(self, keys: str) -> None:
        os.write(self._keys, keys.encode())

    def sees(self, pattern: str, seconds: float = 90) -> str:
        """What is shown up to and with the pattern, from where was looked last."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self._seen[self._shown :])):
            ready, _, _ = select.select([self._keys], [], [], max(0, end - time.monotonic()))
            assert ready, f"{pattern!r} is not shown: {self._seen[self._shown :]!r}"
            try:
                data = os.read(self._keys, 1 << 16)
            except OSError:  # the program has ended
                data = b""
            assert data, f"ended before {pattern!r}: {self._seen[self._shown :]!r}"
            self._seen += data.decode("utf-8", "replace")
        start, self._shown = self._shown, self._shown + found.end()
        return self._seen[start : self._shown]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._keys)


@pytest.fixture
def chat(demo_bundle: Path) -> Iterator[Callable[..., Typist]]:
    opened: list[Typist] = []

    def start(*arguments: str, out: Path | None = None) -> Typist:
        run = ["-m", "elastic_runtime.cli.run", str(demo_bundle), "--chat", "--budget", "small"]
        opened.append(Typist([*run, "--threads", "1", "--ignore-eos", *arguments], out))
        return opened[-1]

    yield start
    for typist in opened:
        typist.close()


# The hook runs before readline waits for the first key of a line, once. No Python may run behind it, or it would hear
# the signal: all of it is C.
_BEFORE_THE_WAIT = """
import ctypes, readline, signal
from elastic_runtime.cli.turns import turns
readline.set_pre_input_hook(map(ctypes.CDLL(None)["raise"], [signal.SIGINT]).__next__)
for line in turns():
    print("turn:", line)
"""


def test_ctrl_c_is_heard_between_a_key_and_the_wait_for_the_next() -> None:
    typist = Typist(["-c", _BEFORE_THE_WAIT])
    try:
        typist.sees("Ctrl-D ends the conversation\r\n> $")
        typist.press("hello\r")
        typist.sees("turn: hello\r\n(?s:.)*> $")
        typist.press(CTRL_C)
        typist.sees("Ctrl-D ends the conversation\r\n> $")
        typist.press(CTRL_D)
        assert typist.process.wait(60) == 0
    finally:
        typist.close()


def test_a_sign_help_and_a_history(chat: Callable[..., Typist]) -> None:
    typist = chat("--max-new", "2")
    typist.sees(r"budget small on onnxruntime: .*/help")
    typist.sees("> $")
    typist.press("/help\r")
    shown = typist.sees(r"Ctrl-D[^\n]*\n[^\n]*> $")
    assert re.search(r"\n/budget NAME +", shown)
    assert "Ctrl-C" in shown
    typist.press("hello\r")
    typist.sees("cut after 2 tokens.*\n[^\n]*> $")
    typist.press("/help\r")
    typist.sees(r"Ctrl-D[^\n]*\n[^\n]*> $")
    typist.press(UP + UP)  # over the help to the turn before
    typist.sees("hello$")
    typist.press("\r")
    typist.sees("cut after 2 tokens.*\n[^\n]*> $")
    typist.press(CTRL_D)
    assert typist.process.wait(60) == 0


def test_ctrl_c_stops_an_answer_or_a_line_and_not_the_program(chat: Callable[..., Typist]) -> None:
    typist = chat("--max-new", "1900")
    typist.sees("> $")
    typist.press("hello\r")
    typist.sees(r"hello\r\n(?s:.){30}")  # the answer goes on
    typist.press(CTRL_C)
    typist.sees(r"\^C(?s:.)*> $")
    typist.press("half a li")
    typist.sees("half a li$")
    typist.press(CTRL_C)
    typist.sees("Ctrl-D ends the conversation\r\n> $")
    typist.press("/help\r")
    typist.sees("/budget NAME")
    typist.sees("> $")
    typist.press(CTRL_D)
    assert typist.process.wait(60) == 0


def test_what_is_not_the_answer_stays_out_of_an_output_that_is_a_file(
    chat: Callable[..., Typist], tmp_path: Path
) -> None:
    typist = chat("--max-new", "2", out=tmp_path / "answers")
    typist.sees("> $")
    typist.press("hello\r")
    typist.sees("cut after 2 tokens.*\n[^\n]*> $")
    typist.press(CTRL_D)
    assert typist.process.wait(60) == 0
    answers = (tmp_path / "answers").read_bytes()
    assert answers.endswith(b"\n")
    assert b"> " not in answers
