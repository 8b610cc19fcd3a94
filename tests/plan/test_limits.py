"""The limits as a table, and the measured border held against the real builder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnx.parser
import pytest

from closed_form import state_ports
from elastic_export.engine.process import build_engine
from elastic_export.engine.request import EngineRequest
from elastic_export.layers.architecture import Architecture
from elastic_export.ops.contract import load_contract
from elastic_export.ops.plugins import plugin_ops
from elastic_export.plan.limits import check_limits, check_sizes, largest_context
from elastic_export.products import TENSORRT, TENSORRT_RTX
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.interface import Port, Precision

NANO = Architecture(
    pattern="M-*-",
    vocab_size=131072,
    hidden_size=5120,
    ffn_sizes=(20480, 20480),
    mamba_heads=(128,),
    mamba_head_dim=80,
    ssm_groups=8,
    ssm_state=128,
    conv_kernel=4,
    attention_heads=40,
    kv_heads=8,
    attention_head_dim=128,
    epsilon=1e-5,
    time_step_limit=(0.0, float("inf")),
)
GOOD: dict[str, Any] = {
    "ops": "plugin",
    "precision": "bf16",
    "compute_capabilities": ("SM120",),
    "max_tokens": 256,
    "max_context": 16384,
    "max_batch": 1,
}


NATIVE = {**GOOD, "ops": "native"}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"max_context": 256},
        {"max_batch": 64},
        {"max_context": 24448},
        {"max_context": 24449},
        {"max_context": 131072},
        {"max_context": 1 << 30},
        {"max_context": 24448, "ops": "native"},
        {"max_context": 131072, "ops": "native", "precision": "fp32"},
    ],
)
def test_what_builds_is_accepted(change: dict[str, Any]) -> None:
    check_limits(NANO, **{**GOOD, **change})


@pytest.mark.parametrize(
    ("change", "most"),
    [
        ({}, 1 << 30),
        ({"attention_head_dim": 256}, 1 << 30),
        ({"attention_head_dim": 8}, 1 << 30),
        ({"attention_heads": 2, "kv_heads": 1}, 1 << 30),
        ({"attention_head_dim": 264}, None),  # neither kernel: products in float32, of any context
        ({"attention_head_dim": 20}, None),
    ],
)
def test_what_the_attention_plugin_takes(change: dict[str, Any], most: int | None) -> None:
    """Contexts by the op's contract where it takes the heads, else as in a native engine."""
    model = replace(NANO, **change)
    assert largest_context(model, "bf16", "plugin") == most
    assert largest_context(model, "fp32", "plugin") is None
    taken = {op.contract.name for op in plugin_ops(model, "bf16")}
    assert taken == {"Mamba2Mixer"} | ({"CachedAttention"} if most else set())
    check_limits(model, **{**GOOD, "max_context": 1 << 20})


def test_the_limits_of_the_plugins_are_the_contracts() -> None:
    mixer, attention = (load_contract(name).limits for name in ("mamba2_mixer", "cached_attention"))
    assert largest_context(NANO, "bf16", "plugin") == attention["S"][1]
    for option, symbol in (("max_tokens", "T"), ("max_batch", "B")):
        most = min(mixer[symbol][1], attention[symbol][1])
        check_limits(NANO, **{**GOOD, "max_context": 1 << 30, option: most})
        text = rf"--{option.replace('_', '-')}: expected at most {most} with plugin ops \(Mamba2Mixer\), found"
        with pytest.raises(InputError, match=text):
            check_limits(NANO, **{**GOOD, "max_context": 1 << 30, option: most + 1})
        check_limits(NANO, **{**NATIVE, "max_context": 24448, option: min(24448, most)})


def test_a_product_without_a_fused_kernel_takes_any_context() -> None:
    assert largest_context(NANO, "bf16", "native", TENSORRT) is None
    check_limits(NANO, product=TENSORRT, **{**NATIVE, "max_context": 1 << 17})


def test_a_product_that_puts_no_plugin_in_place_of_a_function_body_builds_native_layers_only() -> None:
    product = replace(TENSORRT, plugins=False)
    with pytest.raises(InputError, match=r"^--ops plugin: expected a product with plugins, found the full TensorRT"):
        check_limits(NANO, product=product, **GOOD)
    check_limits(NANO, product=product, **{**GOOD, "ops": "native"})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"max_tokens": 0}, "--max-tokens: expected 1 or more, found 0. Leave --max-tokens out or raise it."),
        ({"max_context": 0}, "--max-context: expected 1 or more, found 0. Leave --max-context out or raise it."),
        (
            {"max_context": 1 << 31, "max_batch": 1},
            "--max-context: expected at most 2147483647, found 2147483648. Lower --max-context.",
        ),
        ({"max_batch": 1 << 31}, "--max-batch: expected at most 2147483647, found 2147483648. Lower --max-batch."),
        ({"max_batch": -1}, "--max-batch: expected 1 or more, found -1. Leave --max-batch out or raise it."),
        (
            {"max_tokens": 300, "max_context": 256},
            "--max-tokens: expected at most --max-context (256), found 300. Lower --max-tokens or raise --max-context.",
        ),
        (
            {"max_context": 24449, "ops": "native"},
            "--max-context: expected at most 24448 with native ops (attention head size 128 in bf16), found 24449. "
            "Lower --max-context to 24448, over more rows no attention kernel decodes, or use --ops plugin, which "
            "takes up to 1073741824.",
        ),
        (
            {"max_context": (1 << 30) + 1, "ops": "native"},
            "--max-context: expected at most 24448 with native ops (attention head size 128 in bf16), found "
            "1073741825. Lower --max-context to 24448, over more rows no attention kernel decodes.",
        ),
        (
            {"max_context": (1 << 30) + 1},
            "--max-context: expected at most 1073741824 with plugin ops (attention head size 128 in bf16), found "
            "1073741825. Lower --max-context to 1073741824, over more rows no attention kernel decodes.",
        ),
        (
            {"compute_capabilities": ("SM75", "SM120")},
            "--precision: expected fp16 or fp32 for SM75, found bf16, which that hardware lacks. "
            "Use --precision fp16 or leave that target out.",
        ),
        ({"precision": "int8"}, "--precision: expected bf16, fp16, fp32, found 'int8'. Name one of them, or none."),
    ],
)
def test_what_does_not_build_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError) as caught:
        check_limits(NANO, **{**GOOD, **change})
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("precision", "head_dim", "query_heads", "fused"),
    [
        ("bf16", 128, 40, True),
        ("fp16", 16, 4, True),
        ("bf16", 24, 4, True),
        ("bf16", 256, 4, True),
        ("bf16", 20, 4, False),
        ("bf16", 8, 4, False),
        ("bf16", 264, 4, False),
        ("bf16", 128, 3, False),
        ("fp32", 128, 40, False),
    ],
)
def test_fused_attention(precision: Precision, head_dim: int, query_heads: int, fused: bool) -> None:
    assert TENSORRT_RTX.fuses_attention(precision, query_heads, head_dim) is fused


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"ssm_state": 300}, "--ops plugin: expected a state size of 1 to 256, found 300. Use --ops native."),
        ({"mamba_head_dim": 257}, "--ops plugin: expected a Mamba head size of 1 to 256, found 257. Use --ops native."),
        ({"conv_kernel": 12}, "--ops plugin: expected a convolution width of 2 to 8, found 12. Use --ops native."),
        ({"conv_kernel": 1}, "--ops plugin: expected a convolution width of 2 to 8, found 1. Use --ops native."),
    ],
)
def test_what_the_plugin_has_no_room_for(change: dict[str, Any], text: str) -> None:
    large = replace(NANO, **change)
    with pytest.raises(InputError) as caught:
        check_limits(large, **GOOD)
    assert str(caught.value) == text
    check_limits(large, **{**GOOD, "ops": "native"})
    check_limits(replace(large, pattern="-*-", mamba_heads=()), **GOOD)  # no mixer, no such plugin


def test_an_engine_without_a_plugin_that_it_cannot_have_names_no_other_ops_mode() -> None:
    """--ops plugin is refused for the state size, so it is no way out of a long context."""
    with pytest.raises(InputError) as caught:
        check_limits(replace(NANO, ssm_state=300), **{**NATIVE, "max_context": 131072})
    assert caught.value.todo == "lower --max-context to 24448, over more rows no attention kernel decodes"
    with pytest.raises(InputError) as caught:
        check_limits(NANO, product=replace(TENSORRT_RTX, plugins=False), **{**NATIVE, "max_context": 131072})
    assert "--ops" not in caught.value.todo


def test_no_limit_without_fused_attention() -> None:
    assert largest_context(NANO, "fp32", "native") is None
    assert largest_context(replace(NANO, pattern="M--", ffn_sizes=(1, 1)), "bf16", "native") is None
    assert largest_context(replace(NANO, attention_head_dim=20), "bf16", "native") is None
    check_sizes(max_tokens=1, max_context=1, max_batch=1)


def attention_request(folder: Path, *, context: int, head_dim: int, query_heads: int = 4) -> EngineRequest:
    """One fused attention layer over in-place caches."""
    q, hd = query_heads, head_dim
    text = f"""<ir_version: 11, opset_import: ["": 24]>
    g (int64[B] position, bfloat16[B,{q},T,{hd}] q, bfloat16[B,1,T,{hd}] k,
       bfloat16[B,1,S,{hd}] "key_cache.0", bfloat16[B,1,S,{hd}] "value_cache.0") =>
      (bfloat16[B,{q},T,{hd}] y, bfloat16[B,1,S,{hd}] "key_cache_out.0", bfloat16[B,1,S,{hd}] "value_cache_out.0") {{
      "key_cache_out.0" = TensorScatter<axis = 2, mode = "linear">("key_cache.0", k, position)
      "value_cache_out.0" = TensorScatter<axis = 2, mode = "linear">("value_cache.0", k, position)
      zero = Constant<value_int = 0>()
      one = Constant<value_int = 1>()
      v1 = Constant<value_ints = [1]>()
      v13 = Constant<value_ints = [1, 3]>()
      T0 = Shape<start = 2, end = 3>(q)
      Tn = Squeeze(T0)
      S0 = Shape<start = 2, end = 3>("key_cache.0")
      Sn = Squeeze(S0)
      rows = Range(zero, Tn, one)
      cols = Range(zero, Sn, one)
      p1 = Unsqueeze(position, v1)
      limit = Add(p1, rows)
      limit4 = Unsqueeze(limit, v13)
      mask = LessOrEqual(cols, limit4)
      y = Attention(q, "key_cache_out.0", "value_cache_out.0", mask)
    }}"""
    onnx.save(onnx.parser.parse_model(text), str(folder / "attention.onnx"))
    return EngineRequest(
        onnx=folder / "attention.onnx",
        output=folder / "attention.engine",
        compute_capabilities=("SM120", "SM86"),
        precision="bf16",
        max_tokens=8,
        max_context=context,
        max_batch=1,
        ops="native",
        ports=(
            Port("position", "int64", ("B",)),
            Port("q", "bfloat16", ("B", q, "T", hd)),
            Port("k", "bfloat16", ("B", 1, "T", hd)),
            *state_ports("bfloat16", mamba=[], attention=[(1, hd)]),
        ),
        outputs=(Port("y", "bfloat16", ("B", q, "T", hd)),),
    )


def test_the_real_builder_has_that_border(tmp_path: Path) -> None:
    border = largest_context(NANO, "bf16", "native")
    assert border is not None
    build_engine(attention_request(tmp_path, context=border, head_dim=128))
    with pytest.raises(BuildError, match="not supported by a dedicated kernel"):
        build_engine(attention_request(tmp_path, context=border + 1, head_dim=128))


def test_the_real_builder_refuses_few_query_heads(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="not supported by a dedicated kernel"):
        build_engine(attention_request(tmp_path, context=64, head_dim=128, query_heads=3))
