"""The Python declaration of CachedAttention: fields and shapes by the contract, and real SM120 engines through it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attention_model import Attention, attention_request
from elastic_export.engine.process import build_engine
from elastic_export.ops.cached_attention import CACHED_ATTENTION
from elastic_export.ops.cached_attention.creator import declaration, workspace_bytes
from elastic_export.ops.contract import LIMITS, plugin_folder
from elastic_export.ops.kernel_limits import read_constants
from elastic_export.ops.plugin_creator import bind_shapes, read_fields, shared_input
from elastic_runtime.errors import BuildError

DECLARATION = declaration()
CONTRACT = DECLARATION.contract
CONSTANTS = read_constants(plugin_folder() / "cached_attention" / LIMITS)
FIELDS = {
    "num_heads": np.int32(8),
    "num_key_value_heads": np.int32(2),
    "head_dim": np.int32(32),
    "scale": np.float32(0.125),
}
DIMS = [(1, 7, 256), (1, 7, 64), (1, 7, 64), (1, 2, 4096, 32), (1, 2, 4096, 32), (1,)]


def test_the_op_of_the_parent_graph_is_the_contracts() -> None:
    contract = CACHED_ATTENTION.contract
    assert (contract.domain, contract.name, contract.version) == ("elastic", "CachedAttention", 1)
    assert CACHED_ATTENTION.inputs == tuple(operand.name for operand in contract.inputs)
    assert list(contract.attributes) == list(FIELDS)
    assert CACHED_ATTENTION.integers == {"position"}
    assert contract.types["T"] == ("float16", "bfloat16")


def test_both_caches_are_written_where_they_are_read() -> None:
    names = [operand["name"] for operand in CONTRACT["inputs"]]
    shared = [shared_input(CONTRACT, output) for output in range(3)]
    assert shared == [-1, names.index("key_cache"), names.index("value_cache")]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"head_dim": None}, "attribute head_dim: expected a value, found none"),
        (
            {"window": 64},
            "attributes: expected num_heads, num_key_value_heads, head_dim, scale, found window",
        ),
        ({"head_dim": 264}, "attribute head_dim: expected 8 to 256, found 264"),
        ({"head_dim": 20}, "attribute head_dim: expected a multiple of 8, found 20"),
        ({"num_key_value_heads": 0}, "attribute num_key_value_heads: expected 1 to 65535, found 0"),
        ({"scale": float("nan")}, "attribute scale: expected a finite number above 0, found nan"),
        ({"scale": float("inf")}, "attribute scale: expected a finite number above 0, found inf"),
        ({"scale": 0.0}, "attribute scale: expected a finite number above 0, found 0.0"),
    ],
)
def test_bad_fields_are_named(changes: dict[str, object], text: str) -> None:
    given = {name: value for name, value in {**FIELDS, **changes}.items() if value is not None}
    with pytest.raises(ValueError, match=re.escape(f"CachedAttention: {text}")):
        read_fields(DECLARATION, given)


def test_shapes_bind_the_symbols() -> None:
    symbols = bind_shapes(CONTRACT, read_fields(DECLARATION, FIELDS), DIMS)
    assert symbols == {"B": 1, "T": 7, "H": 8, "G": 2, "D": 32, "S": 4096}
    rows = CONSTANTS["kMaxPartRows"]
    assert workspace_bytes(symbols) == 4 * (rows * 32 + 2 * rows)


@pytest.mark.parametrize("index", range(len(DIMS)))
def test_every_wrong_dimension_is_named(index: int) -> None:
    dims = [list(d) for d in DIMS]
    dims[index][-1] += 1
    with pytest.raises(ValueError, match=r"CachedAttention: shape of \w+: expected .*, found "):
        bind_shapes(CONTRACT, read_fields(DECLARATION, FIELDS), dims)


@pytest.mark.parametrize(("dtype", "head_dim"), [("bfloat16", 32), ("float16", 8)])
def test_engine_with_one_plugin_layer(dtype: str, head_dim: int, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    request = attention_request(tmp_path, attention=Attention(head_dim=head_dim, dtype=dtype), context=131072)
    facts = build_engine(request)
    assert facts.plugin_layers == {"CachedAttention": 1}
    assert facts.in_place == {"key_cache.0": "key_cache_out.0", "value_cache.0": "value_cache_out.0"}
    # Scratch is what the kernels ask for, whatever the context.
    assert facts.activation_bytes == (workspace_bytes({"D": head_dim}),) * 2
    first = request.output.read_bytes()
    build_engine(request)
    assert request.output.read_bytes() == first


def test_its_scratch_memory_grows_with_no_context(tmp_path: Path) -> None:
    """The native form of the same model takes more for each row of the cache."""
    pytest.importorskip("tensorrt_rtx")
    figures = {}
    for ops in ("plugin", "native"):
        for context in (2048, 16384):
            facts = build_engine(attention_request(tmp_path, ops=ops, context=context))  # type: ignore[arg-type]
            figures[ops, context] = facts.activation_peak
            assert facts.in_place == {"key_cache.0": "key_cache_out.0", "value_cache.0": "value_cache_out.0"}
    assert figures["plugin", 2048] == figures["plugin", 16384]
    assert figures["native", 16384] > 4 * figures["native", 2048]


@pytest.mark.parametrize("attention", [Attention(head_dim=264, fused=False), Attention(head_dim=20, fused=False)])
def test_engine_refuses_what_the_contract_does_not_know(attention: Attention, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(BuildError):
        build_engine(attention_request(tmp_path, attention=attention))
    assert not (tmp_path / "attention.engine").exists()


def test_layers_side_by_side_have_a_cache_each(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    request = attention_request(tmp_path, count=6, attention=Attention(40, 8, 128), context=131072)
    facts = build_engine(replace(request, max_tokens=1024))
    assert facts.plugin_layers == {"CachedAttention": 6}
    assert len(facts.in_place) == 12
    assert facts.activation_peak < 20_000_000  # one scratch for all: they take turns
