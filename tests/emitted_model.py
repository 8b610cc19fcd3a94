"""One small parent, compiled for one budget and emitted, and a runner for ONNX files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.emit import EmittedModel, emit_model
from elastic_export.graph.facts import clone_with_facts, facts_of
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.passes import budget_passes, run_passes
from elastic_export.reference import budget_masks
from elastic_export.trace.trace import trace_parent

Array = np.ndarray[Any, Any]


DTYPES = {"fp32": ir.DataType.FLOAT, "fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tensors here are tiny: threads cost more than they give."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)


def onnx_session(model: Path | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="session")
def session() -> Callable[[Path | bytes], onnxruntime.InferenceSession]:
    """`session(path or bytes)`: quiet, one thread, on the CPU."""
    return onnx_session


@dataclass
class Compiled:
    """A parent's graph and a way to emit any budget of it."""

    arch: Architecture
    budget: Budget
    graph: ir.Model
    weights: Mapping[str, Array]

    def narrowed(self, precision: str = "fp32", stored: Mapping[str, ir.DataType] | None = None) -> ir.Model:
        dtype, masks = DTYPES[precision], budget_masks(self.arch, self.budget)
        types = dict.fromkeys(facts_of(self.graph).tensors(), dtype) | dict(stored or {})
        passes = budget_passes({name: mask.numpy() for name, mask in masks.items()}, dtype, types)
        return run_passes(clone_with_facts(self.graph), passes)

    def emit(self, path: Path, precision: str = "fp32") -> EmittedModel:
        return emit_model(self.narrowed(precision), self.budget.architecture(self.arch), path, precision=precision)


@pytest.fixture(scope="session")
def compiled() -> Compiled:
    """A parent of all kinds of layers and a budget that cuts every axis."""
    arch = Architecture(
        pattern="M*-",
        vocab_size=61,
        hidden_size=24,
        ffn_sizes=(37,),
        mamba_heads=(6,),
        mamba_head_dim=12,
        ssm_groups=2,
        ssm_state=5,
        conv_kernel=3,
        attention_heads=4,
        kv_heads=2,
        attention_head_dim=16,
        epsilon=1e-3,
        time_step_limit=(0.002, 0.5),
    )
    budget = Budget("small", 20, (30,), (4,), 7, 4, ())
    return Compiled(arch, budget, trace_parent(arch), random_weights(arch, np.random.default_rng(3)))


@pytest.fixture
def emitted(compiled: Compiled, tmp_path: Path) -> EmittedModel:
    """The FP32 file of that budget."""
    return compiled.emit(tmp_path / "model.onnx")
