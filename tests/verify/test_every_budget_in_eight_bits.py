"""Ten random budgets of each of twelve random parents in eight bits: the file against its parent, dequantised.

Sizes are whatever they are drawn as: odd matrices stay as they are, and budgets cut rows and columns anywhere. One
budget more or less decides what is odd, so that all of a parent go through one verification, as in an export.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.dtypes import DTYPES
from elastic_export.emit import emit_model
from elastic_export.graph.facts import clone_with_facts, facts_of
from elastic_export.layers.budget import Budget
from elastic_export.layers.eight_bits import EightBits
from elastic_export.passes import budget_passes, run_passes
from elastic_export.reference import budget_masks
from elastic_export.verify.plan import make_plan
from elastic_export.verify.slices import check_slices
from elastic_export.verify.verify import Subject, make_oracle, verify_budgets
from elastic_export.weights.quantised import Quantised
from elastic_export.weights.recipe import quantised_recipe
from elastic_runtime.format.weights import WeightRecipe, load_weight
from elastic_runtime.ort.weight_source import Recipe
from synthetic import random_architecture, random_budget, write_checkpoint

BF16 = DTYPES["bf16"].ir


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))])
def test_ten_budgets_of_a_parent(seed: int, tmp_path: Path, trace_once: Callable[..., ir.Model]) -> None:
    rng = np.random.default_rng(seed)
    arch = random_architecture(rng)
    # Even where it is not said otherwise, or nearly everything would stay as it is.
    arch = replace(arch, hidden_size=arch.hidden_size + arch.hidden_size % 2, vocab_size=2 * arch.vocab_size)
    budgets = [replace(random_budget(arch, rng, f"b{n}"), hidden_size=_even(arch.hidden_size, rng)) for n in range(10)]
    write_checkpoint(tmp_path / "c", arch, random_weights(arch, rng), [Budget.full(arch, "full"), *budgets], "bf16")
    checkpoint, parent = Checkpoint.open(tmp_path / "c"), trace_once(arch, "backbone", every_token=False)
    eight_bits = EightBits.of(arch, budgets)
    files = Quantised(checkpoint, eight_bits, (), precision="bf16", parent="p")
    files.write(tmp_path, lambda path, digest: None)
    stored = files.found(tmp_path)
    assert stored is not None
    plan, subjects = make_plan(vocab=arch.vocab_size, max_tokens=70, max_context=96), []
    for budget in budgets:
        graph, dtypes = clone_with_facts(parent), dict.fromkeys(facts_of(parent).tensors(), BF16)
        masks = {name: mask.numpy() for name, mask in budget_masks(arch, budget).items()}
        run_passes(graph, budget_passes(masks, BF16, dtypes, eight_bits=eight_bits))
        file = tmp_path / f"{budget.name}.onnx"
        emitted = emit_model(graph, budget.architecture(arch), file, precision="bf16")
        check_slices(emitted, arch, budget, "backbone")
        recipe = quantised_recipe(emitted, stored, eight_bits, lambda path: path.name)
        assert WeightRecipe.from_json(_json(recipe)).inputs == recipe.inputs
        _check_slices_of_the_file(recipe, tmp_path)
        subjects.append(Subject(budget, emitted, Recipe(recipe, tmp_path), plan))
    for verification in verify_budgets(make_oracle(checkpoint, "bf16", eight_bits), subjects):
        assert verification.passed, (verification.budget, [check.failures for check in verification.checks])
        assert verification.error <= 1e-4
    assert any(matrix.transposed for matrix in eight_bits.matrices)


def _even(size: int, rng: np.random.Generator) -> int:
    return 2 * int(rng.integers(1, size // 2 + 1))


def _json(recipe: WeightRecipe) -> dict[str, object]:
    found: dict[str, object] = json.loads(recipe.to_json())
    return found


def _check_slices_of_the_file(recipe: WeightRecipe, folder: Path) -> None:
    """What the runtime cuts is what numpy takes, element by element."""
    for item in recipe.inputs:
        [part] = item.parts
        whole = np.memmap(folder / part.file, np.uint8, "r")[part.offset : part.offset + part.parent_nbytes]
        array = load_weight(item, folder)
        kept = [np.concatenate([np.arange(first, first + count) for first, count in runs]) for runs in part.runs]
        expected = whole.view(array.dtype).reshape(part.parent_shape)[np.ix_(*kept)]
        np.testing.assert_array_equal(array.view(np.uint8), np.ascontiguousarray(expected).view(np.uint8))
