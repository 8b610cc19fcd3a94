"""Shared by the tests of the passes.

Small graphs are ONNX text: `parse` gives them the facts that a traced parent would have, `canonical` compares two of
them whatever their values are called, `evaluate` runs them, parent ops included. Whole models are `Parent`s: traced
once each, compiled for any masks, run in onnxruntime against the masked reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor

from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.emit import EmittedModel, emit_model
from elastic_export.emit.embed import read_weight
from elastic_export.graph.facts import StateSlice, clone_with_facts, facts_of, tensor_slices
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import slice_array, state_runs, tensor_runs
from elastic_export.passes import GraphPass, budget_passes, run_passes
from elastic_export.reference import ElasticModel, Masks, budget_masks, empty_state
from elastic_export.runs import TensorRuns
from elastic_export.trace.trace import trace_parent
from elastic_runtime.errors import ElasticError
from graph_text import FLOAT, Array, canonical, evaluate, feeds_of, parse
from masked_parent import load_reference
from weight_slices import slices_of

__all__ = ["canonical", "evaluate", "feeds_of", "parse"]  # fixtures


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tensors here are tiny: threads cost more than they give."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)


# -------------------------------------------------------------------------------------------------- whole models


@dataclass(frozen=True)
class Cut:
    """One call: T tokens, of which `lengths` are real in each of two rows."""

    tokens: int
    lengths: tuple[int, int]


#: Crosses a chunk of 64, has a row without tokens, decodes.
CUTS = (Cut(67, (67, 61)), Cut(4, (0, 4)), Cut(3, (2, 3)), Cut(1, (1, 1)), Cut(1, (1, 0)))


def session_of(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def relative(found: Array, expected: Array) -> float:
    """‖a−b‖₂ / ‖b‖₂, infinite for a NaN; two empty tensors agree."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    if not np.isfinite(found).all():
        return float("inf")
    error, norm = float(np.linalg.norm(found - expected)), float(np.linalg.norm(expected))
    return error / norm if norm else error


@dataclass
class Parent:
    """A random parent, traced when first asked for."""

    arch: Architecture
    folder: Path
    seed: int = 0
    _ready: dict[Budget, Masks] = field(default_factory=dict)

    @cached_property
    def weights(self) -> dict[str, Array]:
        return random_weights(self.arch, np.random.default_rng(self.seed))

    @cached_property
    def graph(self) -> ir.Model:
        return trace_parent(self.arch)

    @cached_property
    def reference(self) -> ElasticModel:
        return load_reference(self.arch, self.weights.__getitem__, dtype=torch.float64, every_token=True)

    def masks(self, budget: Budget) -> Masks:
        return budget_masks(self.arch, budget)

    def passes(self, masks: Masks, dtype: ir.DataType = FLOAT) -> tuple[GraphPass, ...]:
        stored = dict.fromkeys(facts_of(self.graph).tensors(), dtype)
        return budget_passes({name: mask.numpy() for name, mask in masks.items()}, dtype, stored)

    def narrowed(self, masks: Masks, dtype: ir.DataType = FLOAT) -> ir.Model:
        """The graph after all passes."""
        return run_passes(clone_with_facts(self.graph), self.passes(masks, dtype))

    def compile(self, masks: Masks, sub: Architecture) -> EmittedModel:
        return emit_model(self.narrowed(masks), sub, self.folder / "model.onnx", precision="fp32")

    def errors(self, model: EmittedModel, masks: Masks, cuts: Sequence[Cut] = CUTS, seed: int = 0) -> dict[str, float]:
        """Worst relative error of the logits, and of every state at the end.

        The file runs call by call, with junk ids behind `length`, junk in unwritten cache rows and random recurrent
        states to begin with; the reference runs uncut in float64, its masked channels full of other junk.
        """
        return _Comparison(self, model, masks, np.random.default_rng(seed)).run(cuts)

    def prepare(self, budget: Budget) -> None:
        """Make everything that does not go through the passes, before a fault is built into them."""
        self._ready[budget] = self.masks(budget)
        _ = self.graph, self.reference

    def verdict(self, budget: Budget) -> str:
        """What finds fault with the compile of a prepared budget: an error, the names of what is wrong, or nothing."""
        masks = self._ready[budget]
        try:
            model = self.compile(masks, budget.architecture(self.arch))
            errors = self.errors(model, masks)
        except ElasticError as error:
            return f"error: {error}"
        except Exception as error:  # ONNX's checker and onnxruntime refuse a file in many ways
            return f"{type(error).__module__}.{type(error).__name__}: {error}"
        wrong = [f"runs of {name}" for name in self.foreign_runs(model, budget)]
        return ", ".join([*wrong, *(f"{name} wrong" for name, error in errors.items() if error > 1e-4)])

    def foreign_runs(self, model: EmittedModel, budget: Budget) -> list[str]:
        """Weights and states whose runs differ from the independent statement of what the budget keeps."""
        expected = tensor_runs(self.arch, budget)
        found = {part.tensor: part.runs for part in tensor_slices(model.weight_sources.values())}
        wrong = [name for name in sorted({*expected, *found}) if expected.get(name) != found.get(name)]
        states = state_runs(self.arch, budget)
        for state in model.state_slices:
            wrong += [] if _state_key(self.arch, state) == states[state.input] else [state.input]
        return wrong


def _state_key(arch: Architecture, state: StateSlice) -> tuple[str, TensorRuns]:
    ordinal = next(k for index, _, k in arch.layers() if index == state.layer)
    return f"{state.kind}.{ordinal}", tuple(axis for axis in state.runs if axis is not None)


class _Comparison:
    def __init__(self, parent: Parent, model: EmittedModel, masks: Masks, rng: np.random.Generator) -> None:
        self.parent, self.model, self.rng = parent, model, rng
        self.masks = {name: mask.double() for name, mask in masks.items()}
        self.slices = {state.input: state for state in model.state_slices}

    def run(self, cuts: Sequence[Cut]) -> dict[str, float]:
        capacity = sum(cut.tokens for cut in cuts)
        full = empty_state(self.parent.arch, 2, capacity, torch.float64)
        for name, tensor in full.items():
            tensor.copy_(torch.nan if "cache" in name else torch.from_numpy(self.rng.normal(size=tensor.shape)))
        ids = [self.rng.integers(0, self.parent.arch.vocab_size, (2, cut.tokens)) for cut in cuts]
        logits, position, states = self._cut(
            cuts, ids, {p.name: self._start(p.name, full) for p in self.model.states()}
        )
        expected, last = self._uncut(cuts, ids, full)
        errors = {"logits": 0.0}
        for call, row, values in logits:
            seen = sum(cut.lengths[row] for cut in cuts[: call + 1])
            errors["logits"] = max(errors["logits"], relative(values, expected[row, seen - 1]))
        for name, data in states.items():
            whole = self._kept(name, last)
            for row in range(2):
                mine, theirs = data[row], whole[row]
                if "cache" in name:
                    mine, theirs = mine[:, : position[row]], theirs[:, : position[row]]
                errors[name] = max(errors.get(name, 0.0), relative(mine, theirs))
        return errors

    def _kept(self, name: str, full: Mapping[str, Tensor]) -> Array:
        key, _ = _state_key(self.parent.arch, self.slices[name])
        tensor = full[key].numpy()
        runs = [((0, n),) if r is None else r for n, r in zip(tensor.shape, self.slices[name].runs, strict=True)]
        return slice_array(tensor, tuple(runs))

    def _start(self, name: str, full: Mapping[str, Tensor]) -> Array:
        kept = self._kept(name, full).astype(np.float32)
        return np.full_like(kept, 1e4) if "cache" in name else kept

    def _cut(self, cuts: Sequence[Cut], ids: Sequence[Array], states: dict[str, Array]) -> tuple[Any, Array, Any]:
        session = session_of(self.model.path)
        stored, sources = self.parent.weights, self.model.weight_sources
        weights = {name: read_weight(weight, slices_of(stored)) for name, weight in sources.items()}
        position, logits = np.zeros(2, np.int64), []
        for call, (cut, tokens) in enumerate(zip(cuts, ids, strict=True)):
            feed = {"input_ids": tokens, "position": position, "length": np.array(cut.lengths), **states, **weights}
            values, *after = session.run(None, feed)
            states = {port.name: data for port, data in zip(self.model.states(), after, strict=True)}
            logits += [(call, row, values[row]) for row in range(2) if cut.lengths[row]]
            position = position + np.array(cut.lengths)
        return logits, position, states

    def _uncut(self, cuts: Sequence[Cut], ids: Sequence[Array], full: dict[str, Tensor]) -> tuple[Array, Any]:
        rows = [np.concatenate([t[r, : c.lengths[r]] for c, t in zip(cuts, ids, strict=True)]) for r in range(2)]
        length = torch.tensor([len(row) for row in rows])
        padded = torch.zeros(2, max(1, int(length.max())), dtype=torch.int64)
        for row, tokens in enumerate(rows):
            padded[row, : len(tokens)] = torch.from_numpy(tokens)
        logits, last = self.parent.reference(padded, torch.zeros_like(length), length, full, self.masks)
        return logits.numpy(), last


@pytest.fixture(scope="session")
def parent_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Architecture], Parent]:
    """`parent_of(arch)`: the one parent of that architecture, traced once a session.

    Its weights follow from the architecture: the same whichever tests ran before, in however many processes.
    """
    parents: dict[Architecture, Parent] = {}

    def make(arch: Architecture) -> Parent:
        if arch not in parents:
            parents[arch] = Parent(arch, tmp_path_factory.mktemp("parent"), crc32(repr(arch).encode()))
        return parents[arch]

    return make


@pytest.fixture(scope="session")
def cut_type() -> type[Cut]:
    """The class of one call."""
    return Cut


@pytest.fixture(scope="session")
def small() -> Architecture:
    """A parent with everything: three kinds of layers, groups, several queries per KV head, odd widths, limits."""
    return Architecture(
        pattern="M-*M-",
        vocab_size=61,
        hidden_size=24,
        ffn_sizes=(37, 37),
        mamba_heads=(6, 6),
        mamba_head_dim=12,
        ssm_groups=2,
        ssm_state=5,
        conv_kernel=3,
        attention_heads=6,
        kv_heads=2,
        attention_head_dim=8,
        epsilon=1e-3,
        time_step_limit=(0.002, 0.5),
    )


@pytest.fixture(scope="session")
def small_parent(parent_of: Callable[[Architecture], Parent], small: Architecture) -> Parent:
    """That parent."""
    return parent_of(small)


@pytest.fixture
def tight() -> Budget:
    """A budget of `small` that cuts every axis and skips a layer."""
    return Budget("tight", 19, (30, 21), (4, 2), 7, 4, (1,))
