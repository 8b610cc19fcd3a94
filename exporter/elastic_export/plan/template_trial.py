"""Chat templates, rendered in a process of its own: they are programs of somebody else, which need not end."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from elastic_export.packages import child_path
from elastic_runtime.errors import BuildError

#: Of a processor, so that other work on the machine is no reason to refuse; a template takes a thousandth.
SECONDS = 10
_CHILD = "elastic_export.plan.template_child"
_SUBJECT = "chat template"


@dataclass(frozen=True)
class Failure:
    """Why a template gave no text; `kind` is the exception's name, "" where it took too long."""

    kind: str
    expected: str
    found: str


class TemplateTrial:
    """A process that renders, from the `with` statement on: it is ready when the tokenizer is read.

    Raises:
        BuildError: no process can be started.
    """

    def __enter__(self) -> TemplateTrial:
        if not sys.executable:
            expected, found = "a Python to render it in", "none that this one, inside another program, knows"
            raise BuildError(_SUBJECT, expected=expected, found=found, todo="run elastic-export as a command")
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", _CHILD, str(SECONDS)],
            env={**os.environ, "PYTHONPATH": child_path(os.environ)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches us alone; we end the child
            encoding="ascii",
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):  # what the child did not read
                stream.close()

    def render(self, conversation: Mapping[str, Any]) -> Failure | None:
        """Try a conversation (`Tokenizer.conversation`); None where the template makes a text of it.

        Raises:
            BuildError: the process ends of something else than the template's time.
        """
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            print(json.dumps(conversation), file=self._child.stdin, flush=True)
            answer = self._child.stdout.readline()
        except BrokenPipeError:
            answer = ""
        with suppress(ValueError):
            return Failure(**found) if (found := json.loads(answer)) else None
        if (status := self._child.wait()) == -signal.SIGXCPU:
            return Failure("", f"a text within {SECONDS} s of a processor", "none")
        found = f"its process ended with status {status}"
        # A signal is the system's, mostly for memory; a status of its own comes with words of its own.
        command = shlex.join([sys.executable, "-P", "-m", _CHILD, str(SECONDS)])
        todo = "close other programs" if status < 0 else f"see what {command} </dev/null says"
        raise BuildError(_SUBJECT, expected="to be rendered", found=found, todo=todo)
