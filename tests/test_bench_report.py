"""The figures of the README are those that a benchmark has put there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench_report import Report, Row, read_table, reports_in, with_report
from random_checkpoint import SHAPES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
FILLED = dict(reports_in(README))
REPORT = Report(
    "`elastic-export --budget all` of x", (Row("trace", 1.25, 3_300_000_000), Row("cp, and sync, 2.8 GB", 12.0))
)
PAGE = """# Title

<!-- tests/bench/x.py --shape 1b4 -->
older
<!-- measured -->

between

<!-- tests/bench/x.py --shape 12b -->
other
<!-- measured -->
"""
ROWS = st.builds(
    Row,
    st.from_regex(r"[a-z0-9][a-z0-9 ,.]*", fullmatch=True).map(str.strip),
    st.integers(0, 99_999).map(lambda tenths: tenths / 10),
    st.none() | st.integers(0, 9_999).map(lambda hundredths: hundredths * 10_000_000),
)


def test_the_readme_has_figures_of_a_whole_export() -> None:
    assert any("tests/bench/export.py" in command for command in FILLED)
    assert README.count("<!-- measured -->") == len(FILLED)


@pytest.mark.parametrize("command", FILLED)
def test_the_figures_of_the_readme_are_as_they_were_printed(command: str) -> None:
    report = read_table(FILLED[command])
    assert report.table() == FILLED[command]
    script, _, shape = shlex.split(command)
    assert (ROOT / script).is_file()
    assert re.match(
        rf"`elastic-export .*` of the {shape} \(.* GB of random weights\) on \d+ processors and \d+ GB, load",
        report.subject,
    )
    steps = [row.step for row in report.rows]
    for budget in SHAPES[shape].budgets["budgets"]:
        assert f"passes {budget}" in steps
        assert any(step.startswith(f"engine {budget} ") for step in steps)
    size = f"{SHAPES[shape].nbytes / 1e9:.1f} GB"
    assert {"trace", "bundle", "whole", f"cp, and sync, {size}", f"sha256sum, {size}"} <= set(steps)


@given(st.text("abc `-.", min_size=1).map(str.strip), st.lists(ROWS, min_size=1))
def test_what_is_printed_can_be_read(subject: str, rows: list[Row]) -> None:
    report = Report(subject, tuple(rows))
    assert read_table(report.table()) == report


@pytest.mark.parametrize("wrong", ["", "| 1 |", REPORT.table().replace("1.2", "1.25"), REPORT.table() + "\n| x |"])
def test_what_nobody_printed_is_no_report(wrong: str) -> None:
    with pytest.raises(ValueError, match="no r"):
        read_table(wrong)


def test_a_report_goes_into_its_own_place_and_nowhere_else() -> None:
    page = with_report(PAGE, "tests/bench/x.py --shape 1b4", REPORT)
    assert page == PAGE.replace("older", REPORT.table())
    assert dict(reports_in(page))["tests/bench/x.py --shape 1b4"] == REPORT.table()
    assert with_report(page, "tests/bench/x.py --shape 1b4", REPORT) == page
    with pytest.raises(ValueError, match=r"no line <!-- tests/bench/x\.py --shape 2b --> in the page"):
        with_report(PAGE, "tests/bench/x.py --shape 2b", REPORT)


def test_a_terminal_shows_the_same() -> None:
    assert REPORT.text().splitlines() == [
        "`elastic-export --budget all` of x",
        "  trace                                                        1.2 s    3.30 GB",
        "  cp, and sync, 2.8 GB                                        12.0 s",
    ]
