"""The page of a bundle: whole, escaped, alone, and true to the bundle's reports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from changed_bundle import reseal
from elastic_export.evaluate.loss import LayerError, Loss, TextLoss
from elastic_export.evaluate.lost_rows import WeightLoss
from elastic_export.evaluate.result import Evaluation, Reference, Row, Source, Text
from elastic_export.report.facts import facts_of
from elastic_export.report.page import page_of
from elastic_export.weights.weight_loss import LostRow
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from elastic_runtime.format.manifest import Checkpoint
from elastic_runtime.format.manifest_reader import read_manifest


class Page(HTMLParser):
    """A page whose tags are closed in order; what it refers to, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self._open, self.references, self.tags, self._texts = list[str](), list[str](), list[str](), list[str]()
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self._texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self._texts).split())


@pytest.fixture
def changed(demo_bundle: Path, tmp_path: Path) -> Callable[..., Bundle]:
    """The demo with another report of its small budget, or another manifest."""

    def change(report: Callable[[dict[str, Any]], object] | None = None, **manifest: object) -> Bundle:
        folder = Path(shutil.copytree(demo_bundle, tmp_path / "changed", copy_function=shutil.copyfile))
        file = folder / "small/report.json"
        document = json.loads(file.read_text())
        if report is not None:
            report(document)
        file.write_text(json.dumps(document))
        reseal(folder, **manifest)
        return Bundle.open(folder)

    return change


def test_the_page_says_what_the_bundle_is(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    page = Page(page_of(bundle))
    assert not page.references, "it needs nothing beside it"
    assert "script" not in page.tags
    for budget in bundle.budgets:
        assert budget.name in page.text
        for engine in budget.engines:
            assert engine.file in page.text
    assert page.text.count("run on no card") == 3
    assert "3 checks: an engine runs on a card of its target's class only" in page.text
    assert "elastic-export verify BUNDLE --require engine" in page.text
    report = json.loads((demo_bundle / "small/report.json").read_text())
    worst = max(t["error"] / t["bound"] for t in report["checks"][1]["tensors"].values())
    name = next(n for n, t in report["checks"][1]["tensors"].items() if t["error"] / t["bound"] == worst)
    assert f"rounded passed; worst {name}:" in page.text


def test_figures_are_at_the_layers_of_the_parent(demo_bundle: Path) -> None:
    small = facts_of(Bundle.open(demo_bundle)).budgets[-1]
    assert small.kept == "the parent's layers 0 to 11 without 5, 6, 8"
    chart = small.checks[1].chart
    assert chart is not None
    places = {dot.title.split(":")[0]: dot.x for dot in chart.dots}
    assert places["ssm_state.2"] == places["branch.7"], "its third Mamba layer is the parent's layer 7"
    assert small.bytes is not None
    assert [bar.name for bar in small.bytes.bars][6] == "7 Mamba"


def test_bytes_are_all_of_them(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    facts = facts_of(bundle)
    for budget, found in zip(bundle.budgets, facts.budgets, strict=True):
        assert found.bytes is not None
        longest = max(rect.width for bar in found.bytes.bars for rect in bar.rects)
        sizes: dict[str, int] = {}
        for item in bundle.recipe(budget).inputs:
            key = item.name.split(".mixer")[0].split(".norm")[0]
            sizes[key] = sizes.get(key, 0) + item.nbytes
        scale = max(sizes.values()) / longest
        total = sum(rect.width for bar in found.bytes.bars for rect in bar.rects) * scale
        assert total == pytest.approx(budget.weight_bytes, rel=1e-6)


def test_names_that_are_markup_are_text(changed: Callable[..., Bundle], demo_bundle: Path) -> None:
    evil = "<script>alert(1)</script>"
    checkpoint = Checkpoint(evil, read_manifest(demo_bundle).checkpoint.fingerprint)

    def report(document: dict[str, Any]) -> None:
        document["checks"][0]["against"] = evil
        document["not_run"].append({"check": evil, "why": evil, "command": evil})
        document["checks"][1]["tensors"][f"{evil}.3"] = document["checks"][1]["tensors"]["branch.0"]

    page = page_of(changed(report, checkpoint=checkpoint))
    assert "script" not in Page(page).tags
    assert "&lt;script&gt;" in page


def test_what_was_not_verified_and_what_failed_is_said(changed: Callable[..., Bundle]) -> None:
    def report(document: dict[str, Any]) -> None:
        document |= {"passed": None, "checks": [], "run": None}
        document["not_run"].append({"check": "float32 and rounded", "why": "--no-verify was given", "command": "again"})

    page = Page(page_of(changed(report)))
    assert "not verified" in page.text
    assert "Not verified." in page.text
    assert "1 check: --no-verify was given" in page.text


def test_a_budget_without_a_report_is_not_run(changed: Callable[..., Bundle], demo_bundle: Path) -> None:
    budgets = tuple(replace(budget, report=None) for budget in read_manifest(demo_bundle).budgets)
    page = Page(page_of(changed(budgets=budgets)))
    assert "Nothing was left out" not in page.text
    assert "3 checks: the bundle has no report of it" in page.text


def test_an_error_that_is_no_number(changed: Callable[..., Bundle]) -> None:
    def report(document: dict[str, Any]) -> None:
        document["passed"] = document["checks"][0]["passed"] = False
        document["checks"][0]["tensors"]["ssm_state.1"]["error"] = "nan"

    page = Page(page_of(changed(report)))
    assert "float32 failed; worst ssm_state.1: inf of" in page.text
    assert "failed" in page.text


FORMS: list[Callable[[dict[str, Any]], object]] = [
    lambda document: document.update(checks=[{}]),
    lambda document: document.update(checks=7),
    lambda document: document["checks"][0].update(tensors={}),
    lambda document: document["checks"][0]["tensors"].update(logits={"error": "much", "bound": 1}),
    lambda document: document.update(not_run=[["why"]]),
    lambda document: document.update(checks=None),
]


@pytest.mark.parametrize("form", FORMS, ids=range(len(FORMS)))
def test_a_report_of_another_form_is_an_error_that_names_it(changed: Callable[..., Bundle], form: Any) -> None:
    with pytest.raises(InputError, match=r"small/report\.json: expected a report as this version writes it"):
        page_of(changed(form))


def measured(bundle: Bundle, **changes: Any) -> Evaluation:
    """What `evaluate --json` would write of the bundle's budgets."""
    rows = tuple(
        Row(budget.name, "fp32", budget.parameters, budget.weight_bytes, 7 << 30, 1.5 + number, 3.25, 0.125, 0.75)
        for number, budget in enumerate(bundle.budgets)
    )
    text = Text("<b>held out</b>.txt", "0" * 64, 4096, 1021, 1, 1024, 1023, False)
    found = Evaluation(
        "elastic-export 0", Source("bundle", "demo", "bf16"), text, Reference("large", "fp32"), 16384, rows
    )
    return replace(found, **changes)


def test_the_loss_of_each_budget(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    facts = facts_of(bundle, measured(bundle))
    assert facts.loss is not None
    assert [bar.text for bar in facts.loss.bars.bars] == ["1.500", "2.500", "3.500"]
    assert facts.loss.rows[1] == ("medium", "bf16", "fp32", "2.5000", "3.25", "0.125", "75.0%", "7.0 GiB")
    page = Page(page_of(bundle, measured(bundle)))
    assert "<b>held out</b>.txt: 1,021 tokens, 4,096 bytes" in page.text
    assert "Not measured" in Page(page_of(bundle)).text


def test_of_an_evaluation_the_bundle_s_budgets_alone(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    found = measured(bundle)
    others = tuple(replace(row, parameters=row.parameters + 1) for row in found.rows)
    facts = facts_of(bundle, replace(found, rows=(*others[:2], found.rows[2])))
    assert facts.loss is not None
    assert [row[0] for row in facts.loss.rows] == ["small"]
    with pytest.raises(InputError, match="the evaluation: expected budgets of the bundle: large of 3389104"):
        facts_of(bundle, replace(found, rows=others))


def quantised(bundle: Bundle) -> Evaluation:
    """The same of int8, and what that lost."""
    found = measured(bundle)
    layers = tuple(LayerError(layer, 0.01 * (layer + 1)) for layer in bundle.budgets[1].kept_layers)
    text = TextLoss("medium", "int8", "fp32", 0.0125, 0.0042, 0.975, 0.031, 0.002, layers)
    weights = (WeightLoss("medium", "int8", 0.0066, (LostRow("<b>lm_head</b>.weight", 131071, 0.0123),)),)
    rows = tuple(replace(row, quantisation="int8") for row in found.rows)
    other = replace(text, budget="of another bundle")
    return replace(found, rows=rows, loss=Loss("<i>the parent</i>", (text, other), weights))


def test_what_quantising_lost(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    loss = facts_of(bundle, quantised(bundle)).loss
    assert loss is not None
    assert loss.rows[1][:3] == ("medium", "int8", "fp32")
    assert loss.quantised is not None
    last = bundle.budgets[1].kept_layers[-1]
    worst = f"{0.01 * (last + 1):.2%} after layer {last}"
    figures = ("medium", "int8", "fp32", "+0.0125", "0.0042", "97.5%", "3.10%", worst)
    assert loss.quantised.rows == (figures,)
    [(name, chart)] = loss.quantised.depth
    assert name == "medium, int8, fp32"
    assert len(chart.dots) == len(bundle.budgets[1].kept_layers)
    assert [dot.y for dot in chart.dots] == sorted((dot.y for dot in chart.dots), reverse=True)
    page = Page(page_of(bundle, quantised(bundle)))
    assert "Lost by quantising" in page.text
    assert "<i>the parent</i>" in page.text
    assert "<b>lm_head</b>.weight1310711.23%" in page.text  # cells of a row
    assert "medium: int8, all matrices together off by 0.66%" in page.text
    assert "Lost by quantising" not in Page(page_of(bundle, measured(bundle))).text


def test_a_row_of_another_checkpoint_is_told_from_the_bundle_s(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    found = quantised(bundle)
    plain = replace(found.rows[0], quantisation=None, source=Source("checkpoint", "<b>origin</b>", "fp32"))
    found = replace(found, rows=(plain, *found.rows))
    loss = facts_of(bundle, found).loss
    assert loss is not None
    assert [row[:2] for row in loss.rows[:2]] == [("large", "fp32 (against)"), ("large", "int8")]
    assert [bar.name for bar in loss.bars.bars[:2]] == ["large fp32 (against), fp32", "large int8, fp32"]
    assert loss.against == "large in fp32, weights fp32 (against)"
    said = "weights of the bundle demo, bf16; (against): of the checkpoint <b>origin</b>, fp32"
    assert said in Page(page_of(bundle, found)).text


def test_a_quantised_budget_is_named_and_how_its_loss_is_measured(
    changed: Callable[..., Bundle], demo_bundle: Path
) -> None:
    budgets = tuple(replace(budget, quantisation="int8", weights=None) for budget in read_manifest(demo_bundle).budgets)
    bundle = changed(budgets=budgets)
    assert all(budget.weights.endswith(" int8") for budget in facts_of(bundle).budgets)
    assert "evaluate BUNDLE --against CHECKPOINT --text FILE" in Page(page_of(bundle)).text
    assert "What quantising lost was not measured" in Page(page_of(bundle, measured(bundle))).text
    assert "Lost by quantising" not in Page(page_of(bundle)).text  # of a version that did not record it


def test_what_rounding_took_needs_no_evaluation(changed: Callable[..., Bundle], demo_bundle: Path) -> None:
    """It is in the reports; an evaluation adds the budgets whose reports do not say it."""
    bundle, row = changed(), {"tensor": "<b>lm_head</b>.weight", "row": 7, "error": 0.0123}
    section = {"quantisation": "int8", "dequantised": ["FP8"], "error": 0.0066, "rows": [row]}
    file = bundle.path / "small/report.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rounding": section}))
    page = Page(page_of(bundle)).text
    assert "small: int8, all matrices together off by 0.66% of the dequantised FP8" in page
    assert "<b>lm_head</b>.weight71.23%" in page
    found = quantised(bundle)
    assert [rows.budget for rows in facts_of(bundle, found).lost] == ["small", "medium"]
    assert found.loss is not None
    [medium] = found.loss.weights
    small = [replace(medium, budget="small", quantisation=kind) for kind in ("int8", "FP8")]  # of FP8: before int8
    found = replace(found, loss=replace(found.loss, weights=(*small, medium)))
    lost = [(rows.budget, rows.quantisation) for rows in facts_of(bundle, found).lost]
    assert lost == [("small", "int8"), ("small", "FP8"), ("medium", "int8")]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rounding": {"error": 1.0}}))
    with pytest.raises(InputError, match=r"small/report.json: rounding.*Export the bundle again"):
        page_of(bundle)
