"""Shared by the tests of the verify stage: a small checkpoint compiled for one budget, and the verdict on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.dtypes import DTYPES
from elastic_export.emit import EmittedModel, emit_model
from elastic_export.graph.facts import clone_with_facts, facts_of
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.eight_bits import EightBits
from elastic_export.passes import budget_passes, run_passes
from elastic_export.reference import budget_masks
from elastic_export.verify.oracle import Oracle
from elastic_export.verify.plan import Plan, make_plan
from elastic_export.verify.verify import Subject, Verification, make_oracle, require_passed, verify_budgets
from elastic_export.weights.quantised import Quantised
from elastic_export.weights.recipe import quantised_recipe, shared_recipe
from elastic_runtime.errors import ElasticError
from elastic_runtime.format.weights import WeightRecipe, iter_weights
from elastic_runtime.ort.weight_source import Held
from synthetic import write_checkpoint

Array = np.ndarray[Any, Any]

#: Everything the demo has, smaller, and time-step limits that bite (dt lies in 1e-3 … 1e-1).
PARENT = Architecture(
    pattern="M*-M-",
    vocab_size=131,
    hidden_size=72,
    ffn_sizes=(104,) * 2,
    mamba_heads=(8,) * 2,
    mamba_head_dim=12,
    ssm_groups=2,
    ssm_state=16,
    conv_kernel=4,
    attention_heads=8,
    kv_heads=2,
    attention_head_dim=16,
    epsilon=1e-5,
    time_step_limit=(0.002, 0.05),
)
#: Cuts every axis and skips an MLP layer; one of each kind stays.
BUDGET = Budget("tight", 56, (104, 75), (8, 4), 8, 4, (2,))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tensors here are tiny: threads cost more than they give."""
    torch.set_num_threads(1)


@dataclass
class Compiled:
    """A parent of `precision` on disk, its budget, and what verification of the budget needs."""

    folder: Path
    arch: Architecture
    budget: Budget
    precision: str
    trace: Callable[..., ir.Model]
    every_token: bool = False
    wide: tuple[str, ...] = ()  # how the names of the tensors end that are stored in float32
    quantised: bool = False  # whether the file has its weights in eight bits
    plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        weights = random_weights(self.arch, np.random.default_rng(3))
        budgets = [Budget.full(self.arch, "full"), self.budget]
        write_checkpoint(self.folder / "ckpt", self.arch, weights, budgets, dtype=self.precision, wide=self.wide)
        self.plan = make_plan(vocab=self.arch.vocab_size, max_tokens=256, max_context=512)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint.open(self.folder / "ckpt")

    @cached_property
    def oracle(self) -> Oracle:
        return make_oracle(self.checkpoint, self.precision, self.eight_bits)

    @cached_property
    def eight_bits(self) -> EightBits | None:
        return EightBits.of(self.arch, [self.budget], self.checkpoint.prefix) if self.quantised else None

    @cached_property
    def parent(self) -> ir.Model:
        return self.trace(self.arch, self.checkpoint.prefix, every_token=self.every_token)

    @cached_property
    def masks(self) -> dict[str, Array]:
        return {name: mask.numpy() for name, mask in budget_masks(self.arch, self.budget).items()}

    @cached_property
    def emitted(self) -> EmittedModel:
        """The model without a fault."""
        return self.compile("model.onnx")

    def compile(self, file: str = "faulty.onnx") -> EmittedModel:
        dtype = DTYPES[self.precision].ir
        graph, tensors = clone_with_facts(self.parent), self.checkpoint.tensors
        stored = {name: DTYPES[tensors[name].dtype].ir for name in facts_of(self.parent).tensors()}
        run_passes(graph, budget_passes(self.masks, dtype, stored, eight_bits=self.eight_bits))
        sub, path = self.budget.architecture(self.arch), self.folder / file
        return emit_model(graph, sub, path, precision=self.precision, every_token=self.every_token)

    def recipe(self, emitted: EmittedModel) -> WeightRecipe:
        if self.eight_bits is None:
            return shared_recipe(emitted, self.checkpoint, lambda shard: shard.name)
        parent = Quantised(self.checkpoint, self.eight_bits, (), precision=self.precision, parent="small")
        parent.write(self.checkpoint.path, lambda path, digest: None)
        stored = parent.found(self.checkpoint.path)
        assert stored is not None
        return quantised_recipe(emitted, stored, self.eight_bits, lambda file: file.name)

    def load(self, recipe: WeightRecipe) -> list[tuple[str, Array]]:
        return list(iter_weights(recipe, self.checkpoint.path))

    def rewritten(self, model: onnx.ModelProto) -> EmittedModel:
        """The emitted model with other bytes in its file."""
        path = self.folder / "rewritten.onnx"
        onnx.save(model, str(path))
        return replace(self.emitted, path=path)

    def verify(self, emitted: EmittedModel, weights: Iterable[tuple[str, Array]] | None = None) -> Verification:
        held = Held(self.load(self.recipe(emitted)) if weights is None else weights)
        [found] = verify_budgets(self.oracle, [Subject(self.budget, emitted, held, self.plan)])
        return found

    def prepare(self) -> None:
        """Make everything that no fault may touch."""
        _ = self.parent, self.oracle, self.masks, self.emitted


def verdict(verification: Verification) -> str:
    """Which tensors of which check failed, and `require_passed` agrees; empty where all is well."""
    found = [f"{check.name}: {d.tensor}" for check in verification.checks for d in check.failures]
    if found:
        with pytest.raises(ElasticError, match=re.escape(found[0].split(": ")[1])):
            require_passed(verification)
    else:
        require_passed(verification)
    assert verification.passed == (not found)
    return "; ".join(found)


@pytest.fixture(scope="session")
def outcome() -> Any:
    """`outcome(model, emitted, weights=None)`: the failures as text; a named error counts, no other."""

    def judge(model: Compiled, emitted: EmittedModel, weights: Any = None) -> str:
        try:
            return verdict(model.verify(emitted, weights))
        except ElasticError as error:
            return f"error: {error}"

    return judge


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`FAULTS` of a module, as parameters: (fault, expected, precisions, head size)."""
    if "fault" in metafunc.fixturenames:
        defaults = (None, r"float32: .*logits", ("bf16",), 16)
        cases = []
        for given in metafunc.module.FAULTS:
            fault, expected, precisions, head_dim = (*given, *defaults[len(given) :])
            cases += [pytest.param(fault, expected, p, head_dim, id=f"{fault.__name__}-{p}") for p in precisions]
        metafunc.parametrize(("fault", "expected", "precision", "head_dim"), cases)


@pytest.fixture(scope="session")
def narrow_type() -> Any:
    """`narrow_type(precision)`: what a fault rounds to, by ONNX's number; a float32 model's faults round to BF16."""
    return {"bf16": TensorProto.BFLOAT16, "fp16": TensorProto.FLOAT16, "fp32": TensorProto.BFLOAT16}.__getitem__


@pytest.fixture(scope="session")
def two_caches(tmp_path_factory: pytest.TempPathFactory, trace_once: Callable[..., ir.Model]) -> Compiled:
    """A model with two attention layers: its file computes positions and masks once for both."""
    arch = replace(PARENT, pattern="*M*-M*", ffn_sizes=(104,))
    budget = Budget("tight", 56, (75,), (8, 4), 8, 4, (5,))
    made = Compiled(tmp_path_factory.mktemp("caches"), arch, budget, "bf16", trace_once)
    made.prepare()
    return made


@pytest.fixture(scope="session", params=[False, True], ids=["last logits", "all logits"])
def in_eight_bits(
    request: Any, tmp_path_factory: pytest.TempPathFactory, trace_once: Callable[..., ir.Model]
) -> Compiled:
    """The small model in eight bits; its odd FFN stays as it is."""
    arch, folder = replace(PARENT, vocab_size=132), tmp_path_factory.mktemp("int8")
    made = Compiled(folder, arch, BUDGET, "bf16", trace_once, request.param, quantised=True)
    made.prepare()
    return made


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory, trace_once: Callable[..., ir.Model]) -> Any:
    """`compiled(precision, every_token=False, head_dim=16)`: the small model, made once each."""
    made: dict[tuple[str, bool, int], Compiled] = {}

    def make(precision: str = "bf16", every_token: bool = False, head_dim: int = 16) -> Compiled:
        key = (precision, every_token, head_dim)
        if key not in made:
            arch = replace(PARENT, attention_head_dim=head_dim)
            made[key] = Compiled(tmp_path_factory.mktemp(precision), arch, BUDGET, precision, trace_once, every_token)
            made[key].prepare()
        return made[key]

    return make
