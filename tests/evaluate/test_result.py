"""Figures, table, JSON and picture of an evaluation."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from elastic_export.evaluate.passage import Passage, Window
from elastic_export.evaluate.plot import plot
from elastic_export.evaluate.result import Evaluation, Measured, Reference, Source, evaluation
from elastic_export.evaluate.score import Scored
from elastic_export.evaluate.sub_model import Quantisation
from elastic_runtime.errors import InputError
from elastic_runtime.format.interface import Precision
from small_text_model import ARCH, EVEN, SMALL

SVG = "{http://www.w3.org/2000/svg}"


def result(*nats: float, tokens: int = 8, nbytes: int = 20) -> Evaluation:
    """Of three sub-models; one window of `tokens` after a first one."""
    passage = Passage(
        "a <b>.txt", "ab" * 32, (Window(np.zeros(tokens + 1, np.int64), tokens),), tokens, nbytes, (), 16, 15, True
    )
    models = [("full", ARCH), ("small", SMALL.architecture(ARCH)), ("even", EVEN.architecture(ARCH))]
    found = [Measured(name, arch, "fp32", Scored(n, n / 2, 4)) for (name, arch), n in zip(models, nats, strict=True)]
    return evaluation(Source("checkpoint", "model & co", "bf16"), passage, found, Reference("full", "fp32"), 4096)


def test_figures_are_what_their_formulas_say() -> None:
    row = result(16.0, 24.0, 32.0).rows[1]
    assert row.bits_per_byte == pytest.approx(24 / math.log(2) / 20)
    assert row.perplexity == pytest.approx(math.exp(3))
    assert row.kl_divergence == pytest.approx(12 / 8)
    assert row.top1_agreement == 0.5
    assert row.parameters == SMALL.architecture(ARCH).parameters()
    assert row.weight_bytes == 4 * row.parameters


def quantised_result() -> Evaluation:
    """The first of three sub-models has its weights in int8."""
    found = result(16.0, 24.0, 32.0)
    return replace(found, rows=(replace(found.rows[0], quantisation="int8"), *found.rows[1:]))


def test_the_weights_of_quantised_rows_are_named() -> None:
    lines = quantised_result().table().splitlines()
    assert lines[0].split()[:4] == ["budget", "precision", "weights", "params"]
    assert [line.split()[2] for line in lines[1:4]] == ["int8", "bf16", "bf16"]
    svg = ET.fromstring(plot(quantised_result()))
    dots = [c for c in svg.iter(f"{SVG}circle") if c.find(f"{SVG}title") is not None]
    assert [dot.attrib["fill"] == "white" for dot in dots] == [True, False, False] * 2
    kinds = [text.text for text in svg.iter(f"{SVG}text") if " at fp32" in (text.text or "")]
    assert kinds == ["int8 at fp32", "bf16 at fp32"]


def test_the_form_of_the_budget_that_others_are_compared_with_is_named() -> None:
    found = quantised_result()
    rows = (found.rows[0], replace(found.rows[0], quantisation=None), *found.rows[1:])
    assert "against full in fp32, weights bf16;" in replace(found, rows=rows).table()
    eighth = replace(found, rows=rows, reference=Reference("full", "fp32", "int8"))
    assert "against full in fp32, weights int8;" in eighth.table()
    assert "against full in fp32;" in found.table()  # from before forms were told apart: whichever it was
    assert "against full in fp32;" in result(16.0, 24.0, 32.0).table()


def compared_result() -> Evaluation:
    """Of a bundle in bf16 with one budget in int8, beside it that of its checkpoint, which is in float32."""
    passage = Passage("a.txt", "ab" * 32, (Window(np.zeros(9, np.int64), 8),), 8, 20, (), 16, 15, True)
    plain = Measured("full", ARCH, "fp32", Scored(16.0, 0.0, 8), source=Source("checkpoint", "origin", "fp32"))
    eighth = Measured("full", ARCH, "fp32", Scored(17.0, 0.5, 7), Quantisation("int8", ("bf16", 1234)))
    subject, reference = Source("bundle", "origin", "bf16"), Reference("full", "fp32")
    return evaluation(subject, passage, [plain, eighth], reference, 64)


def test_a_row_of_the_checkpoint_compared_with_is_not_said_to_be_the_bundles(tmp_path: Path) -> None:
    found = compared_result()
    lines = found.table().splitlines()
    assert [re.split(r"  +", line)[2] for line in lines[1:3]] == ["fp32 (against)", "int8"]
    assert "KL (nats a token) and top-1 against full in fp32, weights fp32 (against); " in lines[4]
    assert lines[-1].startswith("weights of the bundle origin, bf16; (against): of the checkpoint origin, fp32; ")
    written = json.loads(found.to_json())["rows"]
    assert written[0]["source"] == {"kind": "checkpoint", "name": "origin", "dtype": "fp32"}
    assert "source" not in written[1]
    (tmp_path / "found.json").write_text(found.to_json())
    assert Evaluation.read(tmp_path / "found.json") == found


def test_a_perplexity_beyond_all_numbers_is_none(tmp_path: Path) -> None:
    found = result(8e4, 24.0, 32.0)
    assert found.rows[0].perplexity is None
    assert "   -  " in found.table()
    (tmp_path / "found.json").write_text(found.to_json())
    assert Evaluation.read(tmp_path / "found.json") == found


def test_the_best_rows_are_those_that_no_smaller_one_beats() -> None:
    assert [row.budget for row in result(16.0, 24.0, 32.0).best()] == ["small", "full"]  # even is larger than small
    assert [row.budget for row in result(16.0, 12.0, 14.0).best()] == ["small"]


def test_the_table_says_what_was_scored_and_how() -> None:
    lines = result(16.0, 24.0, 32.0).table().splitlines()
    assert lines[0].split() == ["budget", "precision", "params", "VRAM@4k", "bits/byte", "perplexity", "KL", "top-1"]
    assert lines[2].split()[:2] == ["small", "fp32"]
    assert lines[2].split()[-4:] == ["20.09", "1.5", "50.0%", "*"]
    assert lines[4] == "a <b>.txt: all of it, 8 tokens, 20 bytes, windows of 16 every 15"
    assert "no measure of reasoning" in lines[-1]


def test_json_is_read_back_as_it_was_and_is_strict(tmp_path: Path) -> None:
    found, path = result(16.0, 24.0, 32.0), tmp_path / "found.json"
    path.write_text(found.to_json())
    assert Evaluation.read(path) == found
    document = json.loads(path.read_text())
    for spoilt, message in (
        (document | {"schema": "elastic-evaluation/2"}, "schema: expected 'elastic-evaluation/1'"),
        (document | {"more": 1}, "only the fields"),
        ({name: value for name, value in document.items() if name != "text"}, "the field 'text'"),
    ):
        path.write_text(json.dumps(spoilt))
        with pytest.raises(InputError, match=message):
            Evaluation.read(path)


def test_the_picture_has_every_row_in_both_panels_and_needs_nothing_else() -> None:
    found = result(16.0, 24.0, 32.0)
    svg = ET.fromstring(plot(found))
    assert svg.tag == f"{SVG}svg"
    titles = [title.text for title in svg.iter(f"{SVG}title")]
    assert titles == 2 * [
        f"{row.budget} in fp32: {row.bits_per_byte:.4f} bits per byte" for row in result(16, 24, 32).rows
    ]
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    assert texts[0] == "model & co on a <b>.txt: 8 tokens, 20 bytes"
    assert all(texts.count(name) == 2 for name in ("full", "small", "even"))
    assert not [key for element in svg.iter() for key in element.attrib if "href" in key]


def test_points_lie_where_their_values_are() -> None:
    """More bits per byte is higher up, more parameters further right, and ticks agree with the points."""
    svg = ET.fromstring(plot(result(16.0, 24.0, 32.0)))
    dots = [c for c in svg.iter(f"{SVG}circle") if c.find(f"{SVG}title") is not None][:3]
    full, small, even = ((float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in dots)
    assert small[0] < even[0] < full[0]
    assert even[1] < small[1] < full[1]
    assert even[1] - small[1] == pytest.approx(small[1] - full[1], abs=0.11)


def test_the_picture_is_as_wide_as_what_it_names() -> None:
    """A checkpoint in a long format, beside the one before, in three precisions."""
    found, origin = result(16.0, 24.0, 32.0), Source("checkpoint", "origin", "bf16")
    precisions: list[Precision] = ["fp32", "bf16", "fp16"]
    rows = [replace(found.rows[0], precision=precision, source=origin) for precision in precisions]
    rows += [replace(row, quantisation="FP8+NVFP4", source=None) for row in rows]
    svg = ET.fromstring(plot(replace(found, rows=tuple(rows))))
    named = [text for text in svg.iter(f"{SVG}text") if (text.text or "").endswith(tuple(precisions))]
    assert len(named) == len(rows)
    assert all(float(text.attrib["x"]) + 7 * len(text.text or "") < float(svg.attrib["width"]) for text in named)


@pytest.mark.parametrize("nats", [0.0, 24.0])
def test_rows_that_are_equal_have_a_picture_too(nats: float) -> None:
    found = result(nats, nats, nats)
    equal = replace(found, rows=tuple(replace(row, parameters=5, vram_bytes=7) for row in found.rows))
    assert plot(equal).count("<circle") == 7  # three, twice, and the legend's
