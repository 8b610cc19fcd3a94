"""What an evaluation is said to take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.evaluate.cost import check_memory, cost_text, evaluation_cost, weight_bytes
from elastic_export.evaluate.counterpart import rounded_models
from elastic_export.evaluate.evaluate import Subject, evaluate
from elastic_export.evaluate.from_checkpoint import checkpoint_models
from elastic_export.evaluate.passage import Passage
from elastic_export.plan.machine import Space
from elastic_export.plan.work import Cost, Rates, Work
from elastic_export.progress import Gauge, Progress
from elastic_runtime.errors import BuildError
from small_text_model import TEXT, write_source
from synthetic import NANO_12B, write_sparse_checkpoint

GIB = 1 << 30


class Heard(Progress):
    """Keeps the gauge."""

    gauge: Gauge

    def watch(self, gauge: Gauge) -> None:
        self.gauge = gauge


def test_progress_ends_at_what_was_announced(tmp_path: Path, passage_of: Callable[..., Passage]) -> None:
    checkpoint, heard = Checkpoint.open(write_source(tmp_path / "model", plain=True)), Heard()
    models, _ = checkpoint_models(checkpoint, "all")
    subjects = [(model, precision) for model in models for precision in ("fp32", "bf16")]
    total = sum(weight_bytes(model) for model, _ in subjects)
    evaluate(subjects, 0, passage_of(TEXT[:80]), heard, total)
    assert heard.gauge.done() == heard.gauge.total == total


def test_a_12b_with_three_budgets_takes_a_few_gib(tmp_path: Path, passage_of: Callable[..., Passage]) -> None:
    """Of 24.6 GB of weights; the products are two operations a weight and token."""
    write_sparse_checkpoint(tmp_path / "12b")
    models, _ = checkpoint_models(Checkpoint.open(tmp_path / "12b"), "all")
    cost = evaluation_cost([(model, "fp32") for model in models], passage_of("x" * 1025, 1025))
    assert GIB < cost.memory < 4 * GIB
    used = sum(
        model.architecture.parameters() - NANO_12B.vocab_size * model.architecture.hidden_size for model in models
    )
    assert cost.work.products == 2 * 1025 * used
    assert cost.work.read == 2 * (NANO_12B.parameters() - NANO_12B.vocab_size * NANO_12B.hidden_size)


def test_quantised_models_beside_themselves_take_more(tmp_path: Path, passage_of: Callable[..., Passage]) -> None:
    """Their layers come in float32, and rows are compared afterwards."""
    write_sparse_checkpoint(tmp_path / "12b")
    checkpoint, passage = Checkpoint.open(tmp_path / "12b"), passage_of("x" * 65, 65)
    [plain], _ = checkpoint_models(checkpoint, "12b")
    [quantised] = rounded_models(checkpoint, [plain])
    one, two = (evaluation_cost([(model, "fp32")], passage) for model in (plain, quantised))
    layer = max(22656 * 5120 + 5120 * 10240, 2 * 20480 * 5120)
    assert two.memory - one.memory == 2 * layer
    subjects: list[Subject] = [(plain, "fp32"), (quantised, "fp32")]
    alone, beside = evaluation_cost(subjects, passage), evaluation_cost(subjects, passage, paired=True)
    assert beside.memory >= alone.memory
    assert beside.work.read == 2 * alone.work.read
    assert beside.work.moved > alone.work.moved


def test_a_long_text_takes_memory_for_its_streams_and_no_more(
    checkpoint: Checkpoint, passage_of: Callable[..., Passage]
) -> None:
    models, parent = checkpoint_models(checkpoint, "full")
    short, long = passage_of("x" * 4_001, 64), passage_of("x" * 40_001, 64)
    more = evaluation_cost([(parent, "fp32")], long).memory - evaluation_cost([(parent, "fp32")], short).memory
    tokens = sum(len(window.ids) for window in long.windows) - sum(len(window.ids) for window in short.windows)
    assert more == tokens * 4 * parent.architecture.hidden_size + 36_000 * 4 * 8
    assert len(models) == 1


def test_what_is_said_and_what_is_refused() -> None:
    cost = Cost(3 * GIB, Work(products=1e12))
    rates = Rates(1e10, 1, 1, 1, 1, 1, 1, 1)
    assert cost_text(cost, rates, Space(4 * GIB, "this machine")) == (
        "this takes about 2 min here; 3.0 GiB of memory of 4.0 GiB free"
    )
    assert cost_text(cost, rates, None) == "this takes about 2 min here; 3.0 GiB of memory"
    check_memory(cost, Space(3 * GIB, "this machine"))
    check_memory(cost, None)
    with pytest.raises(BuildError, match=r"memory: expected about 3\.0 GiB free, found 2\.0 GiB on this machine"):
        check_memory(cost, Space(2 * GIB, "this machine"))
