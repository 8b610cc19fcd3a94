"""What verification is said to take is what it does: its products are counted while it runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from elastic_export.layers.budget import Budget
from elastic_export.ops.mamba2_mixer import equations
from elastic_export.reference import mixers
from elastic_export.verify import cost, shipped, way
from elastic_export.verify.cost import FEW_ROWS, verification_cost
from elastic_export.verify.plan import make_plan
from elastic_export.verify.verify import Subject, verify_budgets
from elastic_runtime.ort.weight_source import Held


def test_blocks_and_steps_are_those_of_who_works_in_them() -> None:
    """A plan asks before torch is imported, so that the reckoning cannot take them from there."""
    assert (cost._BLOCK, cost._CONVERTED, cost._STEPWISE) == (way._BLOCK, mixers._CONVERTED, equations.FEW)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_products_are_counted_as_they_are_made(compiled: Any, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    made, linear, run = Counter[str](), torch.nn.functional.linear, shipped.OnnxModel.run

    def counting_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        made[str(x.dtype)] += 2 * (x.numel() // x.shape[-1]) * weight.numel()
        return linear(x, weight)

    def counting_run(self: Any, *arguments: Any) -> Any:
        ids = arguments[0]
        rows = len(ids) if "logits" in self.outputs else ids.size  # the head takes the last token of each row
        for name, array in self._kept:
            if array.ndim == 2 and "embeddings" not in name:
                few = rows <= FEW_ROWS
                made["few rows" if few else "torch.float32"] += array.nbytes if few else 2 * rows * array.size
        return run(self, *arguments)

    model = compiled(precision)
    plan = make_plan(vocab=model.arch.vocab_size, max_tokens=64, max_context=256)
    full = replace(model, budget=Budget.full(model.arch, "full"))
    files = [(model, model.emitted), (full, full.compile("full.onnx"))]
    subjects = [Subject(m.budget, e, Held(m.load(m.recipe(e))), plan) for m, e in files]
    monkeypatch.setattr(torch.nn.functional, "linear", counting_linear)
    monkeypatch.setattr(shipped.OnnxModel, "run", counting_run)
    assert all(found.passed for found in verify_budgets(model.oracle, subjects))
    work = verification_cost(model.arch, [m.budget for m, _ in files], plan, narrow=precision != "fp32").work
    assert work.products == made["torch.float32"]
    assert work.double_products == made["torch.float64"]
    assert work.few_rows == made["few rows"]


def test_more_budgets_take_more_time_but_less_memory_each(compiled: Any) -> None:
    model = compiled("bf16")
    one, two, three = (verification_cost(model.arch, [model.budget] * n, model.plan, narrow=True) for n in (1, 2, 3))
    assert one.memory < two.memory < three.memory
    assert three.memory - two.memory < two.memory - one.memory, "two are side by side, and never three"
    assert three.work.products == 3 * one.work.products
    assert three.work.read < 3 * one.work.read


def test_logits_of_every_token_take_memory_and_roundings_take_time(compiled: Any) -> None:
    model = compiled("bf16")
    plain = verification_cost(model.arch, [model.budget], model.plan, narrow=False)
    judged = verification_cost(model.arch, [model.budget], model.plan, narrow=True)
    every = verification_cost(model.arch, [model.budget], model.plan, narrow=True, every_token=True)
    assert plain.memory < judged.memory < every.memory
    assert plain.work.double_products == judged.work.double_products > 0
    assert plain.work.few_rows < judged.work.few_rows
    assert judged.work.products < every.work.products
