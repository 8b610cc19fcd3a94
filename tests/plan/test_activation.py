"""Estimate and bounds against what TensorRT-RTX 1.7.1 logs for engines of SM120 (the same for SM75, 86 and 89)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from elastic_export.checkpoint.budgets import parse_budgets
from elastic_export.layers.architecture import Architecture
from elastic_export.plan.activation import (
    AttentionShape,
    activation_bounds,
    estimate_activation,
    estimated_activation,
    logits_buffer,
    size_bound,
)
from elastic_export.products import TENSORRT
from random_demo import ARCHITECTURE as DEMO
from random_demo import BUDGETS as DEMO_BUDGETS
from synthetic import BUDGETS_12B, NANO_12B

SMALL_DEMO = parse_budgets(DEMO_BUDGETS, DEMO, "demo")[0]["small"].architecture(DEMO)
NANO_6B = parse_budgets(BUDGETS_12B, NANO_12B, "12b")[0]["6b"].architecture(NANO_12B)
#: Bytes of the 12B's largest in_proj, [22656, 5120] in BF16.
IN_PROJ = 22656 * 5120 * 2

#: model, precision, ops, (tokens, context, batch), builder's figures of decode and prefill.
LOGGED: list[tuple[Architecture, Any, Any, tuple[int, int, int], int, int]] = [
    (NANO_12B, "bf16", "plugin", (256, 8192, 1), 24_676_864, 56_476_672),
    (NANO_12B, "bf16", "plugin", (1024, 131072, 1), 24_676_864, 197_149_696),
    (NANO_12B, "bf16", "native", (256, 8192, 1), 24_787_456, 246_145_024),
    (NANO_12B, "bf16", "native", (256, 16384, 1), 24_795_648, 418_111_488),
    (NANO_12B, "bf16", "native", (1024, 16384, 1), 24_795_648, 641_396_736),
    (NANO_6B, "bf16", "plugin", (256, 8192, 1), 24_643_072, 47_809_536),
    (NANO_6B, "bf16", "native", (256, 8192, 1), 24_718_336, 195_132_416),
    (DEMO, "bf16", "plugin", (256, 8192, 1), 4_463_616, 26_125_312),
    (DEMO, "bf16", "plugin", (256, 131072, 1), 4_463_616, 26_125_312),
    (DEMO, "bf16", "native", (256, 16384, 1), 8_304_640, 39_631_360),
    (DEMO, "bf16", "native", (256, 2048, 1), 8_290_816, 31_898_624),
    (DEMO, "fp32", "plugin", (256, 16384, 4), 77_447_168, 1_129_710_080),
    (NANO_12B, "fp32", "plugin", (256, 8192, 1), 76_833_280, 778_928_640),
    (NANO_12B, "bf16", "plugin", (256, 8192, 4), 31_122_432, 165_692_416),
    (NANO_12B, "bf16", "native", (256, 8192, 4), 29_986_304, 956_291_584),
    (NANO_12B, "bf16", "plugin", (256, 8192, 16), 32_329_728, 632_046_592),
    (NANO_12B, "bf16", "plugin", (2048, 131072, 2), 30_921_216, 632_046_592),
    (NANO_12B, "bf16", "native", (1024, 8192, 1), 24_787_456, 462_048_256),
    (SMALL_DEMO, "bf16", "native", (64, 2048, 2), 8_283_136, 25_963_008),
]  # fmt: skip


@pytest.mark.parametrize(("model", "precision", "ops", "sizes", "decode", "prefill"), LOGGED)
def test_estimate_and_bounds_hold_what_was_logged(
    model: Architecture, precision: Any, ops: Any, sizes: tuple[int, int, int], decode: int, prefill: int
) -> None:
    tokens, context, batch = sizes
    estimate = estimated_activation(model, precision, max_tokens=tokens, max_batch=batch, ops=ops).at(context)
    assert prefill <= estimate <= 1.5 * prefill
    bounds = activation_bounds(model, precision, ops, max_tokens=tokens, max_context=context, max_batch=batch)
    assert decode <= bounds[0]
    assert estimate <= bounds[1]


#: Demo with other mixers (state size, head size, heads): builder's prefill figure at 256 x 1 and at 1024 x 2 tokens.
MIXERS = [
    ((256, 8, 64), 97_283_072, 710_082_560),
    ((16, 8, 128), 39_136_768, 241_929_216),
    ((128, 64, 8), 31_785_984, 108_300_288),
    ((64, 200, 4), 31_929_856, 88_894_464),
]


@pytest.mark.parametrize(("mixer", "short", "long"), MIXERS)
def test_many_small_heads_are_granted_what_they_need(mixer: tuple[int, int, int], short: int, long: int) -> None:
    state, size, heads = mixer
    model = replace(DEMO, ssm_state=state, mamba_head_dim=size, mamba_heads=(heads,) * 5)
    for figure, tokens, context, batch in ((short, 256, 512, 1), (long, 1024, 1024, 2)):
        sizes = {"max_tokens": tokens, "max_context": context, "max_batch": batch}
        bound = activation_bounds(model, "bf16", "native", **sizes)[1]
        assert figure <= bound <= 2 * figure
        estimate = estimated_activation(model, "bf16", max_tokens=tokens, max_batch=batch, ops="native").at(context)
        assert figure <= estimate <= min(1.5 * figure, bound)


def test_attention_beyond_a_native_mixer_is_no_more() -> None:
    """12B, 256 tokens. Products 256 * 4 * 128 * (128 + 512) = 83886080, half of 5 states of 5242880 are 13107200:
    above the 20992 bytes a row of attention up to a context of 4620, and no more to pay beyond.
    """
    native = estimated_activation(NANO_12B, "bf16", max_tokens=256, ops="native")
    assert native.at(0) == native.at(4620) == 94_599_232 + 83_886_080 + 13_107_200
    assert native.at(4621) == 94_599_232 + 4621 * 20_992


def test_an_attention_plugin_takes_the_same_for_every_context() -> None:
    """25e6 + 9 * 22656 * 1024 = 233797696 for the 12B; in FP32 attention is native in a plugin engine too."""
    sizes = {"max_tokens": 1024, "max_batch": 1}
    plugin = estimated_activation(NANO_12B, "bf16", **sizes)
    assert plugin.at(1) == plugin.at(1 << 30) == 233_797_696
    bounds = [activation_bounds(NANO_12B, "bf16", "plugin", **sizes, max_context=c) for c in (1024, 1 << 20)]
    assert bounds[0] == bounds[1]
    assert estimated_activation(NANO_12B, "fp32", **sizes).per_context_token > 0


def test_the_attention_plugins_scratch_is_granted() -> None:
    """33.8 MB where heads have 256: more than the products' own in decode, and in prefill of a small model."""
    model, scratch = replace(DEMO, attention_head_dim=256), 4 * 32768 * (256 + 2)
    assert estimated_activation(model, "bf16", max_tokens=1).at(1) > scratch > 32_000_000
    decode, prefill = activation_bounds(model, "bf16", "plugin", max_tokens=1, max_context=64, max_batch=1)
    assert scratch < decode < 1.5 * scratch
    assert scratch < prefill < 1.5 * scratch


@pytest.mark.parametrize("row", [row for row in LOGGED[:10] if row[0] is not NANO_6B and row[3][1] >= 8192])
def test_the_estimate_is_within_two_fifths(row: tuple[Any, ...]) -> None:
    model, precision, ops, (tokens, context, batch), _, prefill = row
    estimate = estimated_activation(model, precision, max_tokens=tokens, max_batch=batch, ops=ops)
    assert estimate.at(context) <= 1.4 * prefill


def test_a_product_without_fused_attention_is_planned_as_a_model_whose_heads_no_kernel_takes() -> None:
    sizes = {"max_tokens": 256, "max_batch": 1}
    odd = replace(NANO_12B, attention_head_dim=130)  # the same path, of any product
    fused, explicit, other = (
        estimated_activation(model, "bf16", **sizes, **more)
        for model, more in (
            (NANO_12B, {"ops": "native"}),
            (NANO_12B, {"ops": "native", "product": TENSORRT}),
            (odd, {"ops": "native"}),
        )
    )
    assert fused.per_context_token < explicit.per_context_token <= other.per_context_token
    bounds = activation_bounds(NANO_12B, "bf16", "native", **sizes, max_context=16384, product=TENSORRT)
    assert bounds[1] >= explicit.at(16384)
    assert bounds[0] > activation_bounds(NANO_12B, "bf16", "native", **sizes, max_context=16384)[0]
    in_plugin_engine = estimated_activation(odd, "bf16", **sizes)  # nor does our plugin take them
    assert in_plugin_engine.per_context_token == other.per_context_token


@pytest.mark.parametrize("row", LOGGED[:4])
def test_one_copied_matrix_breaks_either_bound(row: tuple[Any, ...]) -> None:
    model, precision, ops, (tokens, context, batch), decode, prefill = row
    bounds = activation_bounds(model, precision, ops, max_tokens=tokens, max_context=context, max_batch=batch)
    assert bounds[0] < 25_000_000 + IN_PROJ < decode + IN_PROJ + 1_000_000
    assert bounds[1] < prefill + IN_PROJ


def test_logits_of_every_token_are_a_tensor_more() -> None:
    sizes = {"max_tokens": 256, "max_context": 8192, "max_batch": 2}
    last, every = (activation_bounds(NANO_12B, "bf16", "plugin", **sizes, every_token=each) for each in (False, True))
    assert every == (last[0], last[1] + 2 * 2 * 256 * 131_072)


@pytest.mark.parametrize(("precision", "width"), [("bf16", 2), ("fp32", 0)])
def test_an_estimate_of_every_tokens_logits_holds_the_tensor_and_the_buffer(precision: Any, width: int) -> None:
    sizes = {"max_tokens": 256, "max_batch": 2}
    for ops in ("plugin", "native"):
        last, every = (
            estimated_activation(NANO_12B, precision, **sizes, ops=ops, every_token=each) for each in (False, True)
        )
        for context in (256, 8192):
            assert every.at(context) - last.at(context) == (width + 4) * 2 * 256 * 131_072
    assert logits_buffer(NANO_12B, **sizes) == 4 * 2 * 256 * 131_072


#: Demo with 65,536 tokens of vocabulary, logits of every token, 256 x 2 tokens: builder's figure of prefill.
EVERY_TOKEN = [("bf16", "plugin", 78_595_072), ("bf16", "native", 97_074_176), ("fp32", "plugin", 50_168_320)]


@pytest.mark.parametrize(("precision", "ops", "figure"), EVERY_TOKEN)
def test_an_estimate_holds_what_was_logged_for_logits_of_every_token(precision: Any, ops: Any, figure: int) -> None:
    model, sizes = replace(DEMO, vocab_size=65_536), {"max_tokens": 256, "max_batch": 2}
    estimate = estimated_activation(model, precision, **sizes, ops=ops, every_token=True).at(1024)
    needed = figure + logits_buffer(model, **sizes)
    assert needed <= estimate <= 1.2 * needed
    assert figure <= activation_bounds(model, precision, ops, **sizes, max_context=1024, every_token=True)[1]


def test_a_model_of_one_kind_has_bounds() -> None:
    plain = replace(DEMO, pattern="-", ffn_sizes=(448,), mamba_heads=())
    assert estimated_activation(plain, "bf16", max_tokens=256).per_context_token == 0
    bounds = activation_bounds(plain, "bf16", "native", max_tokens=256, max_context=1 << 20, max_batch=1)
    assert all(math.isfinite(bound) and bound < 50_000_000 for bound in bounds)


def test_size() -> None:
    """Logged: 28.2 MB for the 12B with plugins (30.1 native) at batch 1, 54.3 MB for a batch of 4 or 16; demo 10.2."""
    assert size_bound(NANO_12B, 1, 1) == 64_000_000
    assert 65_491_780 < size_bound(NANO_12B, 1, 4) < 90_000_000
    assert size_bound(NANO_12B, 3, 1) == 3 * 64_000_000
    assert size_bound(SMALL_DEMO, 1, 2) > 16_379_748


def test_the_estimate_bounds_what_the_12b_was_measured_to_take() -> None:
    """25e6 + 12 * 22656 * 256 = 94599232, and 2 * 40 * 128 * 2 + 2 * 256 = 20992 bytes a row of the cache.

    times 8192 rows 266565696 bytes, times 16384 rows 438532160.
    """
    attention = AttentionShape(query_heads=40, kv_heads=8, head_dim=128, itemsize=2, fused=True)
    estimate = estimate_activation(22656, max_tokens=256, attention=attention)
    assert not estimate.measured
    assert (estimate.bytes, estimate.per_context_token) == (94_599_232, 20_992)
    assert (estimate.at(8192), estimate.at(16384)) == (266_565_696, 438_532_160)
    four = estimate_activation(22656, max_tokens=256, max_batch=4, attention=attention)
    assert (four.bytes, four.per_context_token) == (25_000_000 + 4 * 69_599_232, 4 * 20_992)
    assert estimate_activation(22656, max_tokens=1).at(16384) == 25_271_872


def test_explicit_attention_takes_its_scores_and_copies_of_its_caches() -> None:
    """Twice 40 * 256 scores of 4 bytes are 81920; 8 keys of 128 in float32 are 4096, once or three times."""
    wide, narrow = (AttentionShape(40, 8, 128, itemsize, fused=False) for itemsize in (4, 2))
    assert (wide.scratch(256), narrow.scratch(256)) == (81_920 + 4096, 81_920 + 3 * 4096)
