"""What was kept against what a budget means: a mask of the right width in the wrong place is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from elastic_export.emit import EmittedModel, emit_model
from elastic_export.graph.facts import Weight, clone_with_facts, facts_of
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.passes import budget_passes, run_passes
from elastic_export.reference import budget_masks
from elastic_export.trace.trace import trace_parent
from elastic_export.verify.slices import check_slices
from elastic_runtime.errors import InternalError

ARCH = Architecture("M*-", 31, 12, (20,), (4,), 6, 2, 4, 3, 4, 2, 16, 1e-5, (0.0, float("inf")))
HALF = Budget("half", 8, (10,), (2,), 4, 2, ())


@pytest.fixture(scope="module")
def parent() -> ir.Model:
    return trace_parent(ARCH)


def emitted(parent: ir.Model, folder: Path, **changed: np.ndarray) -> EmittedModel:
    graph, float32 = clone_with_facts(parent), ir.DataType.FLOAT
    masks = {name: mask.numpy() for name, mask in budget_masks(ARCH, HALF).items()}
    masks |= {name.replace("__", "."): mask for name, mask in changed.items()}
    run_passes(graph, budget_passes(masks, float32, dict.fromkeys(facts_of(parent).tensors(), float32)))
    return emit_model(graph, HALF.architecture(ARCH), folder / "m.onnx", precision="fp32")


def test_the_budgets_own_masks_hold(parent: ir.Model, tmp_path: Path) -> None:
    check_slices(emitted(parent, tmp_path), ARCH, HALF, "backbone")


def test_the_tensors_of_a_merged_weight_are_each_checked(parent: ir.Model, tmp_path: Path) -> None:
    model = emitted(parent, tmp_path)
    sources = dict(model.weight_sources)
    names = [f"backbone.layers.1.mixer.{kind}_proj.weight" for kind in "kv"]
    keys, values = (sources.pop(name).parts[0] for name in names)
    check_slices(replace(model, weight_sources={**sources, "kv": Weight((keys, values))}), ARCH, HALF, "backbone")
    moved = replace(values, runs=(values.runs[0], ((1, 8),)))
    with pytest.raises(InternalError, match=rf"weight {names[1]} of half: expected runs"):
        check_slices(replace(model, weight_sources={**sources, "kv": Weight((keys, moved))}), ARCH, HALF, "backbone")
    with pytest.raises(InternalError, match=rf"weight {names[1]} of half: expected runs .*, found None"):
        check_slices(replace(model, weight_sources={**sources, "kv": Weight((keys,))}), ARCH, HALF, "backbone")


def test_the_last_channels_instead_of_the_first(parent: ir.Model, tmp_path: Path) -> None:
    suffix = (np.arange(20) >= 10).astype(np.float32)
    model = emitted(parent, tmp_path, ffn__2=suffix)
    with pytest.raises(InternalError, match=r"weight backbone.layers.2.mixer.\w+_proj.weight of half: expected runs"):
        check_slices(model, ARCH, HALF, "backbone")


def test_other_heads_of_a_group(parent: ir.Model, tmp_path: Path) -> None:
    channels = np.outer([0, 1, 0, 1], [1, 1, 1, 1, 0, 0]).astype(np.float32).ravel()
    projected = np.concatenate([channels, channels, np.ones(16), [0, 1, 0, 1]]).astype(np.float32)
    model = emitted(parent, tmp_path, channels__0=channels, projected__0=projected)
    with pytest.raises(InternalError, match="A_log of half: expected runs"):
        check_slices(model, ARCH, HALF, "backbone")
