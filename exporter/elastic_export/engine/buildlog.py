"""Reading the builder's log: the only place where a machine without a GPU learns what an engine will need."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

#: Written once per optimisation profile, in profile order, whatever the number of compute capabilities (1.7.1).
ACTIVATION_LINE = re.compile(r"^Total Activation Memory: (\d+) bytes$")
#: Written while parsing, once per graph input nobody reads (1.7.1).
UNUSED_LINE = re.compile(r"Unused Input: (\S+)$")
ERROR_SEVERITIES = ("INTERNAL_ERROR", "ERROR")


@dataclass(frozen=True)
class LogLine:
    """One message of the builder; severity is TensorRT's own name for it."""

    severity: str
    text: str

    def __str__(self) -> str:
        return f"[{self.severity}] {self.text}"


def activation_bytes(log: Iterable[LogLine]) -> tuple[int, ...]:
    """Bytes of activation memory per profile, in profile order; empty where the builder said nothing."""
    matches = (ACTIVATION_LINE.search(line.text) for line in log)
    return tuple(int(match.group(1)) for match in matches if match)


def unused_inputs(log: Iterable[LogLine]) -> tuple[str, ...]:
    """Names of graph inputs that no node reads, as the parser warns about them."""
    matches = (UNUSED_LINE.search(line.text) for line in log)
    return tuple(match.group(1) for match in matches if match)


def errors(log: Iterable[LogLine]) -> tuple[str, ...]:
    """Texts of the errors, in order."""
    return tuple(line.text for line in log if line.severity in ERROR_SEVERITIES)


def last_words(output: str, *, lines: int = 6, width: int = 400) -> str:
    """The end of what a process said, short enough for an error message."""
    tail = [line.strip()[:width] for line in output.splitlines() if line.strip()][-lines:]
    return " | ".join(tail) if tail else "nothing"
