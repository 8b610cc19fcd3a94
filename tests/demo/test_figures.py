"""What the README says of the demo is what was measured, in its place."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import click
import numpy as np
import pytest
from figures import PICTURE, bits_table, distinct, held_out_share, picture, put

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
FOUND = {
    "large, full model's slice": 1.0,
    "small, full model's slice": 3.0,
    "large, elastic": 0.9,
    "small, elastic": 1.25,
}
SIZES = {"large": 3_000_000, "small": 1_000_000}


def test_the_share_of_distinct_runs() -> None:
    assert distinct([1, 2, 3, 4, 5]) == 1
    assert distinct([7] * 13) == 0.1
    assert distinct([1, 2, 1, 2, 1, 2, 1]) == 0.5
    assert held_out_share(np.arange(1000, dtype=np.uint16)) == 1


def test_the_table_has_a_row_a_budget_and_what_was_not_measured_is_empty() -> None:
    lines = bits_table(FOUND, SIZES).splitlines()
    assert lines[2:] == ["| large | 3,000,000 | 1.000 | 0.900 |  |", "| small | 1,000,000 | 3.000 | 1.250 |  |"]


def test_the_picture_has_every_figure() -> None:
    svg = ET.fromstring(picture(FOUND, SIZES))
    words = [element.text for element in svg.iter() if element.text]
    assert {f"{value:.3f}" for value in FOUND.values()} <= set(words)
    heights = {t.text: float(t.get("y", "")) for t in svg.iter() if re.fullmatch(r"\d\.\d{3}", t.text or "")}
    assert heights["3.000"] < heights["1.250"] < heights["0.900"], "more bits stand higher"


def test_it_is_put_between_the_marks_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- tests/demo/figures.py bits -->\nold\n<!-- end of bits -->\nz\n")
    put(page, "bits", "new")
    put(page, "bits", "newer")
    assert page.read_text() == "a\n<!-- tests/demo/figures.py bits -->\nnewer\n<!-- end of bits -->\nz\n"
    with pytest.raises(click.ClickException, match="no marks of samples"):
        put(page, "samples", "x")


def test_the_readme_s_figures_are_the_card_s_and_the_picture_s() -> None:
    from elastic_export.checkpoint.demo import demo_checkpoint

    card = (demo_checkpoint() / "README.md").read_text("utf-8")
    table = README.split("<!-- tests/demo/figures.py bits -->")[1].split("<!-- end of bits -->")[0]
    assert PICTURE.name in README
    drawn = PICTURE.read_text("utf-8")
    rows = dict(re.findall(r"^\| (large|medium|small) \| ([\d,]+) \|", table, re.MULTILINE))
    [line] = [line for line in card.splitlines() if line.startswith("| parameters |")]
    assert [cell.strip() for cell in line.split("|")[2:5]] == [rows[name] for name in ("large", "medium", "small")]
    figures = re.findall(r"\d\.\d{3}", table)
    assert len(figures) == 7
    assert all(figure in drawn for figure in figures)
