"""Standard streams of another encoding than UTF-8, as Windows gives a redirected one."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys

import pytest

from elastic_runtime.cli.streams import is_reader_gone, speak_utf8

_ECHO = """
import sys
from elastic_runtime.cli.streams import speak_utf8
speak_utf8()
text = sys.stdin.read()
sys.stdout.write(text)
print(repr(text.encode("utf-8", "replace")), "\\udc80", file=sys.stderr)
"""
SIGNS = "Grüße, 你好 🙂"


def test_what_a_code_page_lacks_is_read_and_written() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ECHO],
        input=SIGNS.encode(),
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
    )
    assert done.stdout.decode() == SIGNS
    assert done.stderr.decode().split()[-1] == "\\udc80"


def test_a_stream_that_is_none_or_of_no_file_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    other = io.StringIO()
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stdout", other)
    speak_utf8()
    assert sys.stdout is other


def test_a_reader_that_has_gone_is_known_by_what_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    gone, invalid = BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.EINVAL, "Invalid argument")
    assert is_reader_gone(gone)
    assert not is_reader_gone(invalid)
    monkeypatch.setattr(sys, "platform", "win32")
    assert is_reader_gone(gone)
    assert is_reader_gone(invalid)
    assert not is_reader_gone(OSError(errno.EINVAL, "Invalid argument", "a file"))
    assert not is_reader_gone(OSError(errno.ENOSPC, "No space left on device"))
