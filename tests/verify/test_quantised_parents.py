"""Quantised parents: what ships of any budget is what the format says, rounded once; faults in reading show.

The oracle here is told by the writer what each matrix is worth; the one that exports are verified with reads the codes
itself. Both must find the shipped file right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from elastic_export.checkpoint.conversion import convert
from elastic_export.checkpoint.formats.all_formats import FORMAT_OF
from elastic_export.checkpoint.formats.format import Format
from elastic_export.checkpoint.formats.fp8 import FP8
from elastic_export.checkpoint.formats.nvfp4 import NVFP4
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.checkpoint.tensors import QuantisedTensor
from elastic_export.dtypes import DTYPES
from elastic_export.emit import EmittedModel, emit_model
from elastic_export.graph.facts import clone_with_facts, facts_of
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.passes import budget_passes, run_passes
from elastic_export.reference import budget_masks
from elastic_export.runs import TensorRuns, positions
from elastic_export.verify.oracle import Oracle
from elastic_export.verify.plan import Plan, make_plan
from elastic_export.verify.verify import Subject, make_oracle, require_passed, verify_budgets
from elastic_export.weights.recipe import sliced_recipe
from elastic_export.weights.sliced import write_sliced
from elastic_runtime.errors import BuildError
from elastic_runtime.format.weights import iter_weights
from elastic_runtime.ort.weight_source import Held
from quantised_checkpoint import Kind, Written, write_quantised

TOLERANCE = 1e-4
ARCH = Architecture(
    pattern="M*-M",
    vocab_size=61,
    hidden_size=64,
    ffn_sizes=(80,),
    mamba_heads=(6, 6),
    mamba_head_dim=32,
    ssm_groups=2,
    ssm_state=8,
    conv_kernel=3,
    attention_heads=8,
    kv_heads=2,
    attention_head_dim=16,
    epsilon=1e-5,
    time_step_limit=(0.0, float("inf")),
)


def mixed(module: str) -> str | None:
    """Both formats in one mixer, a matrix as it was beside them."""
    names = {"in_proj": "NVFP4", "out_proj": "FP8", "up_proj": "FP8", "down_proj": "NVFP4", "q_proj": "NVFP4",
             "v_proj": "FP8", "o_proj": "NVFP4", "embeddings": "NVFP4", "lm_head": "FP8"}  # fmt: skip
    return names.get(module.rsplit(".", 1)[-1])


KINDS: dict[str, Kind] = {"FP8": lambda module: "FP8", "NVFP4": lambda module: "NVFP4", "mixed": mixed}
#: What each kind's budgets keep multiples of, where columns are cut: blocks of 16, or anything.
STEP = {"FP8": 1, "NVFP4": 16, "mixed": 16}


def random_budget(rng: np.random.Generator, step: int, name: str) -> Budget:
    """Every width whole or cut, between blocks of `step` columns; sometimes a layer is skipped."""

    def width(most: int, of: int = 1) -> int:
        unit = max(of, step) if of == 1 else of
        return most if rng.random() < 0.25 else unit * int(rng.integers(1, most // unit + 1))

    skipped = (int(rng.integers(0, 4)),) if rng.random() < 0.3 else ()
    heads, per_group = (width(6, 2), width(6, 2)), width(8, 2)
    head_dim = width(32)
    return Budget(name, width(64), (width(80),), heads, head_dim, per_group, skipped)


@dataclass
class Parent:
    """A quantised checkpoint and what of it ships."""

    written: Written
    graph: ir.Model
    folder: Path
    plan: Plan

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint.open(self.written.folder, require_budgets=False)

    def emit(self, budget: Budget, precision: str) -> EmittedModel:
        dtype = DTYPES[precision].ir
        masks = {name: mask.numpy() for name, mask in budget_masks(ARCH, budget).items()}
        stored = dict.fromkeys(facts_of(self.graph).tensors(), dtype)
        graph = run_passes(clone_with_facts(self.graph), budget_passes(masks, dtype, stored))
        path = self.folder / budget.name / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        return emit_model(graph, budget.architecture(ARCH), path, precision=precision)

    def subject(self, budget: Budget, precision: str) -> Subject:
        """What an export of the budget would ship, its weights written and read back."""
        emitted = self.emit(budget, precision)
        folder = self.folder / budget.name
        dtype = None if precision == "bf16" else precision
        tensors = write_sliced(self.checkpoint, budget, folder, dtype=dtype)
        recipe = sliced_recipe(emitted, tensors)
        return Subject(budget, emitted, Held(list(iter_weights(recipe, folder))), self.plan)

    def told(self, precision: str) -> Oracle:
        """The parent as its writer says that it is, rounded as the file stores it."""

        def read(name: str, rows: Any = slice(None)) -> Any:
            return convert(self.written.worth[name], precision, name).astype(np.float32)[rows]

        return Oracle(ARCH, read, "backbone")


@pytest.fixture(scope="module")
def parent_of(tmp_path_factory: pytest.TempPathFactory, trace_once: Callable[..., ir.Model]) -> Callable[[str], Parent]:
    made: dict[str, Parent] = {}
    weights = random_weights(ARCH, np.random.default_rng(8))
    plan = make_plan(vocab=ARCH.vocab_size, max_tokens=16, max_context=64)

    def make(kind: str) -> Parent:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            written = write_quantised(folder / "ck", ARCH, weights, KINDS[kind])
            made[kind] = Parent(written, trace_once(ARCH), folder, plan)
        return made[kind]

    return make


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
@pytest.mark.parametrize("kind", KINDS)
def test_any_budget_is_the_dequantised_parent(parent_of: Callable[[str], Parent], kind: str, seed: int) -> None:
    """Ten budgets a case, 120 in all, half of them in every run; a narrow model's weights are rounded once, a float32
    one's are exact.
    """
    parent, precision = parent_of(kind), ("bf16", "fp32")[seed % 2]
    rng = np.random.default_rng([seed, *kind.encode()])
    budgets = [random_budget(rng, STEP[kind], f"{precision}{seed}-{i}") for i in range(10)]
    subjects = [parent.subject(budget, precision) for budget in budgets]
    found = verify_budgets(parent.told(precision), subjects)
    found += verify_budgets(make_oracle(parent.checkpoint, precision), subjects[:3])
    for verification in found:
        require_passed(verification)
        assert verification.error <= TOLERANCE


# ------------------------------------------------------------------------------------------------------ seeded faults

Codes = Sequence[np.ndarray[Any, Any]]


def faulty(fmt: Format, change: Callable[[list[Any], list[Any]], tuple[list[Any], list[Any]]]) -> Format:
    """The format, which decodes what `change` makes of its pieces and numbers."""

    def decode(by_rows: Codes, whole: Sequence[np.float32]) -> Any:
        return fmt.decode(*change(list(by_rows), list(whole)))

    return replace(fmt, decode=decode)


def blocks_of_32(pieces: list[Any], whole: list[Any]) -> tuple[list[Any], list[Any]]:
    scales = pieces[1]
    return [pieces[0], scales[:, np.arange(scales.shape[1]) // 2 * 2]], whole


def nibbles_exchanged(pieces: list[Any], whole: list[Any]) -> tuple[list[Any], list[Any]]:
    return [(pieces[0] << 4) | (pieces[0] >> 4), pieces[1]], whole


def global_scale_forgotten(pieces: list[Any], whole: list[Any]) -> tuple[list[Any], list[Any]]:
    return pieces, [np.float32(2.0**-12)]  # about right, so that it is no number that shows by its size


def scales_of_the_row_above(pieces: list[Any], whole: list[Any]) -> tuple[list[Any], list[Any]]:
    return [pieces[0], np.roll(pieces[1], 1, axis=0)], whole


def scales_of_the_block_before(pieces: list[Any], whole: list[Any]) -> tuple[list[Any], list[Any]]:
    return [pieces[0], np.roll(pieces[1], 1, axis=1)], whole


def rows_of_the_row_above(pieces: list[Any], whole: list[Any]) -> tuple[list[Any], list[Any]]:
    return [np.roll(pieces[0], 1, axis=0), *pieces[1:]], whole


def scale_rounded_to_bfloat16(pieces: list[Any], whole: list[Any]) -> tuple[list[Any], list[Any]]:
    return pieces, [np.float32(number.astype(DTYPES["bf16"].numpy)) for number in whole]


FAULTS = [
    (NVFP4, blocks_of_32),
    (NVFP4, nibbles_exchanged),
    (NVFP4, global_scale_forgotten),
    (NVFP4, scales_of_the_row_above),
    (NVFP4, scales_of_the_block_before),
    (NVFP4, scale_rounded_to_bfloat16),
    (FP8, rows_of_the_row_above),
    (FP8, scale_rounded_to_bfloat16),
]
CUT = Budget("cut", 48, (48,), (4, 2), 16, 6, ())


@pytest.mark.parametrize(("fmt", "change"), FAULTS, ids=lambda value: getattr(value, "__name__", "") or value.name)
def test_a_fault_in_reading_is_caught(
    parent_of: Callable[[str], Parent], monkeypatch: pytest.MonkeyPatch, fmt: Format, change: Any
) -> None:
    """By the oracle that exports are verified with, whichever of the matrices have the format."""
    parent = parent_of("mixed")
    monkeypatch.setitem(FORMAT_OF, fmt.pieces[0].dtype, faulty(fmt, change))
    wrong = replace(parent, folder=parent.folder / f"{fmt.name} {change.__name__}")
    [found] = verify_budgets(make_oracle(wrong.checkpoint, "bf16"), [wrong.subject(CUT, "bf16")])
    with pytest.raises(BuildError, match=r"float32 check, "):
        require_passed(found)


def test_scales_that_are_not_cut_with_their_columns_are_caught(
    parent_of: Callable[[str], Parent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block border ignored in the slice: every run would take the scales that the first one has."""

    def cut(self: QuantisedTensor, pieces: Codes, runs: TensorRuns, first: int = 0) -> Any:
        rows, columns = (positions(axis) for axis in runs)
        if self.format is not NVFP4:
            return right(self, pieces, runs, first)
        weight, scales = (piece[rows] for piece in pieces)
        kept = [weight[:, columns[::2] // 2], scales[:, : len(columns) // 16]]
        return self.decode(kept, rows)

    right, parent = QuantisedTensor.cut, parent_of("NVFP4")
    oracle = make_oracle(parent.checkpoint, "bf16")
    whole = replace(parent, folder=parent.folder / "cut")
    monkeypatch.setattr(QuantisedTensor, "cut", cut)
    [found] = verify_budgets(oracle, [whole.subject(CUT, "bf16")])
    with pytest.raises(BuildError, match=r"float32 check, "):
        require_passed(found)
    prefix = replace(CUT, name="prefix", mamba_heads=(6, 6), mamba_head_dim=32, attention_heads=8)
    [found] = verify_budgets(oracle, [whole.subject(prefix, "bf16")])
    require_passed(found)  # where each matrix keeps one run from its first column on, the fault is none
