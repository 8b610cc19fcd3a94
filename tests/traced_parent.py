"""One small architecture of all layer kinds, traced once."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from elastic_export.layers.architecture import Architecture
from elastic_export.trace.trace import trace_parent


@pytest.fixture(scope="session")
def arch() -> Architecture:
    """One layer of each kind; no two widths are alike."""
    return Architecture(
        pattern="M-*",
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
        attention_head_dim=10,
        epsilon=1e-3,
        time_step_limit=(0.002, 0.5),
    )


@pytest.fixture(scope="session")
def traced(arch: Architecture) -> ir.Model:
    """The parent graph of `arch`; do not change it."""
    return trace_parent(arch)
