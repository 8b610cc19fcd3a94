"""What a benchmark measured, as a terminal and the README show it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

HEADER = "| step | seconds | GB of memory |\n|---|---:|---:|"
_BEGIN, _END = "<!-- {} -->\n", "<!-- measured -->\n"
_BLOCK = re.compile(_BEGIN.format("(tests/bench/[^\n]*)") + f"(.*?)\n{_END}", re.DOTALL)
_ROW = re.compile(r"\| (.+) \| (\d+\.\d) \| (\d+\.\d\d|-) \|")


@dataclass(frozen=True)
class Row:
    """A step, its seconds, and the anonymous memory (bytes) of all processes meanwhile, where that is known."""

    step: str
    seconds: float
    memory: int | None = None

    def line(self) -> str:
        """For a terminal."""
        memory = "" if self.memory is None else f"  {self.memory / 1e9:6.2f} GB"
        return f"  {self.step:<56} {self.seconds:7.1f} s{memory}"


@dataclass(frozen=True)
class Report:
    """Rows under a line that says what ran where."""

    subject: str
    rows: tuple[Row, ...]

    def text(self) -> str:
        """For a terminal."""
        return "\n".join([self.subject, *(row.line() for row in self.rows)])

    def table(self) -> str:
        """For the README."""
        rows = (f"| {row.step} | {row.seconds:.1f} | {_gigabytes(row.memory)} |" for row in self.rows)
        return "\n".join([f"{self.subject}:", "", HEADER, *rows])


def reports_in(page: str) -> Iterator[tuple[str, str]]:
    """(command, table) of each place of a page that a benchmark has filled."""
    yield from ((found[1], found[2]) for found in _BLOCK.finditer(page))


def read_table(table: str) -> Report:
    """The report that `Report.table` has printed. Raises ValueError: it prints no such text."""
    subject, header, rows = table.partition(f":\n\n{HEADER}\n")
    if not header:
        raise ValueError(f"no report: {table}")
    return Report(subject, tuple(map(_read_row, rows.splitlines())))


def with_report(page: str, command: str, report: Report) -> str:
    """The page with the report in the place that names the command. Raises ValueError: it has none."""
    if command not in dict(reports_in(page)):
        raise ValueError(f"no line {_BEGIN.format(command).strip()} in the page")
    return _BLOCK.sub(
        lambda found: f"{_BEGIN.format(command)}{report.table()}\n{_END}" if found[1] == command else found[0], page
    )


def _gigabytes(memory: int | None) -> str:
    return "-" if memory is None else f"{memory / 1e9:.2f}"


def _read_row(line: str) -> Row:
    found = _ROW.fullmatch(line)
    if found is None:
        raise ValueError(f"no row of a report: {line}")
    return Row(found[1], float(found[2]), None if found[3] == "-" else round(float(found[3]) * 1e9))
