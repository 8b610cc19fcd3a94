"""config.json: every key that changes the mathematics is honoured or refused by name."""

# ruff: noqa: E501  # a row of a table of messages is read in one line

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from elastic_export.checkpoint.config import FIXED, config_document, parse_config, read_config
from elastic_export.layers.architecture import Architecture
from elastic_runtime.errors import InputError
from synthetic import NANO_9B, NANO_12B, random_architecture


def test_the_published_shapes() -> None:
    assert (NANO_12B.parameters(), len(NANO_12B.tensor_shapes())) == (12_310_001_152, 369)
    assert (NANO_9B.parameters(), len(NANO_9B.tensor_shapes())) == (8_888_227_328, 341)


@pytest.mark.parametrize("seed", range(30))
def test_what_we_write_we_read(seed: int) -> None:
    architecture = random_architecture(np.random.default_rng(seed))
    assert parse_config(config_document(architecture), "config.json") == (architecture, [])


def test_widths_that_vary_by_layer(parent: Architecture) -> None:
    varied = replace(parent, ffn_sizes=(37, 20, 11), mamba_heads=(6, 2, 4))
    document = config_document(varied)
    assert document["intermediate_size"] == [37, 20, 11]
    assert document["elastic_per_layer_widths"] == ["intermediate_size", "mamba_num_heads"]
    assert parse_config(document, "config.json") == (varied, [])


def test_a_config_saved_by_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    kinds = ["linear_attention", "mlp", "full_attention", "mlp"]
    saved = transformers.NemotronHConfig(
        layers_block_type=kinds, hidden_size=32, mamba_num_heads=6, n_groups=2, time_step_limit=[0.0, float("inf")]
    )
    saved.save_pretrained(tmp_path)
    architecture, warnings = parse_config(read_config(tmp_path / "config.json"), "config.json")
    assert (architecture.pattern, architecture.hidden_size, architecture.mamba_heads) == ("M-*-", 32, (6,))
    assert architecture.time_step_limit == (0.0, math.inf)
    assert warnings == []
    again = transformers.NemotronHConfig(**config_document(architecture))
    assert again.layers_block_type == kinds


SPELLINGS: dict[str, dict[str, Any]] = {
    "layer types": {"hybrid_override_pattern": ..., "layers_block_type": ["mamba", "mlp", "attention"] + ["mlp"] * 5},
    "newer layer types": {"hybrid_override_pattern": ..., "layer_types": ["linear_attention"] + ["mlp"] * 7},
    "attention_head_dim": {"head_dim": ..., "attention_head_dim": 8},
    "both head sizes": {"attention_head_dim": 8},
    "mamba_n_groups": {"n_groups": ..., "mamba_n_groups": 2},
    "mamba_d_conv": {"conv_kernel": ..., "mamba_d_conv": 3},
    "rms_norm_eps": {"layer_norm_epsilon": ..., "rms_norm_eps": 1e-5},
    "no eps": {"layer_norm_epsilon": ...},
    "no limit": {"time_step_limit": ...},
    "mamba_dt_limit": {"time_step_limit": ..., "mamba_dt_limit": [0, math.inf]},
    "no layer count": {"num_hidden_layers": ...},
}


def changed(parent: Architecture, changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in (config_document(parent) | changes).items() if value is not ...}


@pytest.mark.parametrize("changes", SPELLINGS.values(), ids=SPELLINGS)
def test_other_spellings(parent: Architecture, changes: dict[str, Any]) -> None:
    architecture, warnings = parse_config(changed(parent, changes), "config.json")
    kept = replace(architecture, pattern=parent.pattern, ffn_sizes=parent.ffn_sizes, mamba_heads=parent.mamba_heads)
    assert (kept, warnings) == (parent, [])
    if "pattern" in str(changes):
        assert architecture.pattern in ("M-*-----", "M-------")


def test_honoured_numbers(parent: Architecture) -> None:
    config = changed(parent, {"layer_norm_epsilon": 0.001, "time_step_limit": [0.01, 0.5]})
    architecture, _ = parse_config(config, "config.json")
    assert (architecture.epsilon, architecture.time_step_limit) == (0.001, (0.01, 0.5))


def test_infinity_in_both_spellings(tmp_path: Path, parent: Architecture) -> None:
    path = tmp_path / "config.json"
    for value in ("Infinity", '{"__float__": "Infinity"}'):
        text = json.dumps(changed(parent, {"time_step_limit": "@"})).replace('"@"', f"[0.0, {value}]")
        path.write_text(text)
        assert parse_config(read_config(path), "c")[0].time_step_limit == (0.0, math.inf)


FLOAT32_MAX = float(np.finfo(np.float32).max)


@given(st.floats(FLOAT32_MAX, exclude_min=True, allow_nan=False) | st.integers(2**128, 10**4200))
@example(1e308)
@example(1.7976931348623157e308)
@example(1e39)
@example(3.4028235e38)
def test_a_bound_above_every_float32_is_none(tmp_path_factory: pytest.TempPathFactory, bound: float) -> None:
    """Whoever cannot write Infinity writes a large number, and an engine computes in float32."""
    path = tmp_path_factory.mktemp("limit") / "config.json"
    path.write_text(json.dumps(changed(NANO_12B, {"time_step_limit": [0.0, bound]})))
    assert parse_config(read_config(path), "c")[0].time_step_limit == (0.0, math.inf)


def test_the_largest_float32_is_a_bound() -> None:
    architecture, _ = parse_config(changed(NANO_12B, {"time_step_limit": [0, FLOAT32_MAX]}), "c")
    assert architecture.time_step_limit == (0.0, FLOAT32_MAX)


OTHER_VALUES: dict[str, Any] = {
    "attention_bias": True,
    "mlp_bias": True,
    "use_bias": True,
    "mamba_proj_bias": True,
    "add_bias_linear": True,
    "use_conv_bias": False,
    "mamba_conv_bias": False,
    "mlp_hidden_act": "silu",
    "hidden_act": "gelu",
    "mamba_hidden_act": "relu",
    "residual_in_fp32": True,
    "is_causal": False,
    "rms_norm": False,
    "mamba_rms_norm": False,
    "norm_before_gate": True,
    "mamba_norm_before_gate": True,
    "tie_word_embeddings": True,
    "sliding_window": 4096,
    "rope_scaling": {"type": "yarn"},
    "rope_parameters": {"rope_type": "yarn"},
    "quantization_config": {"quant_method": "fp8"},
    "compression_config": {},
}


@pytest.mark.parametrize("key", OTHER_VALUES)
def test_unsupported_mathematics_is_refused_by_name(parent: Architecture, key: str) -> None:
    assert FIXED.keys() == OTHER_VALUES.keys()
    for value in (OTHER_VALUES[key], "nonsense", 7):
        with pytest.raises(InputError, match=rf"^config.json, {key}: expected .*nothing else is supported.*, found "):
            parse_config(changed(parent, {key: value}), "config.json")
    assert parse_config(changed(parent, {key: FIXED[key]}), "config.json")[0] == parent
    assert parse_config(changed(parent, {key: None}), "config.json")[0] == parent


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "other model": ({"model_type": "llama"}, "model_type: expected the text 'nemotron_h' (nothing else is supported), found"),
    "no model type": ({"model_type": ...}, "model_type: expected the text 'nemotron_h' (nothing else is supported), found nothing"),
    "no pattern": (
        {"hybrid_override_pattern": ...},
        "layer pattern: expected one of hybrid_override_pattern, layers_block_type or layer_types, found none of them.",
    ),
    "empty pattern": ({"hybrid_override_pattern": ""}, "hybrid_override_pattern: expected a text of the letters M, - and *"),
    "pattern a list": ({"hybrid_override_pattern": ["M"]}, "expected a text of the letters M, - and *, found a list of 1."),
    "unknown letter": (
        {"hybrid_override_pattern": "M-x"},
        "hybrid_override_pattern, layer 2: expected -, M or *, found the text 'x'.",
    ),
    "experts": (
        {"hybrid_override_pattern": "M-E"},
        "hybrid_override_pattern, layer 2: expected a Mamba-2, MLP or attention layer, found a mixture of experts, "
        "as the Nemotron 3 models have (30B-A3B and the nested ones in it). Export a dense model of the family.",
    ),
    "experts in a list": ({"hybrid_override_pattern": ..., "layer_types": ["moe"]}, "layer_types, layer 0: expected a Mamba-2"),
    "unknown type": (
        {"hybrid_override_pattern": ..., "layers_block_type": ["mamba", "conv"]},
        "layers_block_type, layer 1: expected mlp, mamba, linear_attention, attention, full_attention, found the text 'conv'.",
    ),
    "type no text": ({"hybrid_override_pattern": ..., "layer_types": [3]}, "layer_types, layer 0: expected"),
    "patterns disagree": (
        {"layer_types": ["mamba"] * 8},
        "layer_types: expected the layers that hybrid_override_pattern gives, M-*M-M-*, found MMMMMMMM.",
    ),
    "layer count": ({"num_hidden_layers": 9}, "num_hidden_layers: expected 8, the length of hybrid_override_pattern, found 9."),
    "no width": ({"hidden_size": ...}, "hidden_size: expected an integer, found nothing."),
    "null width": ({"hidden_size": None}, "hidden_size: expected an integer, found nothing."),
    "width a text": ({"hidden_size": "24"}, "hidden_size: expected an integer ≥ 1, found the text '24'."),
    "width true": ({"hidden_size": True}, "hidden_size: expected an integer ≥ 1, found true."),
    "width 0": ({"vocab_size": 0}, "vocab_size: expected an integer ≥ 1, found 0."),
    "width a float": ({"mamba_head_dim": 12.0}, "mamba_head_dim: expected an integer ≥ 1, found 12.0."),
    "no FFN width": ({"intermediate_size": ...}, "intermediate_size: expected an integer ≥ 1, found null."),
    "FFN list too short": ({"intermediate_size": [3, 4]}, "expected 3 entries, one a layer of the kind, found a list of 2."),
    "FFN list of texts": ({"intermediate_size": [3, 4, "x"]}, "intermediate_size[2]: expected an integer ≥ 1, found the text 'x'."),
    "no head size": ({"head_dim": ...}, "head_dim or attention_head_dim: expected an integer, found nothing."),
    "head sizes disagree": ({"attention_head_dim": 9}, "attention_head_dim: expected 8, as head_dim says, found 9."),
    "groups disagree": ({"mamba_n_groups": 4}, "mamba_n_groups: expected 2, as n_groups says, found 4."),
    "eps disagree": ({"rms_norm_eps": 1e-6}, "rms_norm_eps: expected 1e-05, as layer_norm_epsilon says, found 1e-06."),
    "eps 0": ({"layer_norm_epsilon": 0}, "layer_norm_epsilon: expected a number between 0 and 1, found 0."),
    "eps no float32 holds": ({"layer_norm_epsilon": 1e-39}, "layer_norm_epsilon: expected a number that float32 holds, 1.2e-38 or more, found 1e-39."),
    "limit nowhere": ({"time_step_limit": [1e39, math.inf]}, "time_step_limit: expected [low, high] with 0 ≤ low ≤ high, found [1e+39, inf]."),
    "limit of no number": ({"time_step_limit": [0.0, math.nan]}, "time_step_limit: expected [low, high]"),
    "limit reversed": ({"time_step_limit": [1.0, 0.5]}, "time_step_limit: expected [low, high] with 0 ≤ low ≤ high, found [1.0, 0.5]."),
    "limit one number": ({"time_step_limit": [1.0]}, "time_step_limit: expected [low, high] with 0 ≤ low ≤ high, found [1.0]."),
    "limit negative": ({"time_step_limit": [-1.0, 2.0]}, "time_step_limit: expected [low, high]"),
    "limit infinite": ({"time_step_limit": [math.inf, math.inf]}, "time_step_limit: expected [low, high]"),
    "heads against groups": (
        {"mamba_num_heads": 5},
        "mamba_num_heads (Mamba layer 0): expected a multiple of the 2 SSM groups, found 5.",
    ),
    "queries against keys": ({"num_attention_heads": 5}, "num_attention_heads: expected a multiple of the 2 KV heads, found 5."),
    "unknown, whatever its name says": (
        {"mascot": "dragon", "herald": 0},
        "mascot: expected no key that may change what is computed, found the text 'dragon' (and herald, unknown too). If",
    ),
    "unknown mathematics": (
        {"attn_logit_softcapping": 50.0},
        "attn_logit_softcapping: expected no key that may change what is computed, found 50.0. If it has no effect on the model, pass --ignore-config attn_logit_softcapping.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_faults_are_named(parent: Architecture, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_config(changed(parent, changes), "config.json")
    assert str(caught.value).startswith(f"config.json, {message}"[:40]) or message in str(caught.value)
    assert message in str(caught.value)
    assert caught.value.todo


def test_unknown_harmless_keys_are_told(parent: Architecture) -> None:
    config = changed(parent, {"mascot": "dragon", "rope_theta": 10000, "logit_softcap": None, "expand": 2})
    _, warnings = parse_config(config, "config.json", ["mascot", "expand"])
    assert warnings == [
        "config.json: mascot is not known and was ignored",
        "config.json: logit_softcap is not known and was ignored",
        "config.json: rope_theta was ignored; Nemotron-H attention has no rotary embedding",
        "--ignore-config expand: is no unknown key of config.json",
    ]


def test_a_key_that_counts_is_not_ignored(parent: Architecture) -> None:
    with pytest.raises(InputError, match="attention_bias: expected false"):
        parse_config(changed(parent, {"attention_bias": True}), "config.json", ["attention_bias"])


def test_bookkeeping_of_the_library_needs_no_word(parent: Architecture) -> None:
    extra = {"chunk_size_feed_forward": 0, "time_step_rank": 256, "top_k": 50, "id2label": {"0": "A"}, "max_length": 20}
    assert parse_config(changed(parent, extra), "config.json") == (parent, [])


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.sampled_from(["M", "mamba", "x", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["__float__", "a"]), inner, max_size=2),
    max_leaves=6,
)
KEYS = sorted(
    {*config_document(NANO_12B), *FIXED, "layer_types", "rms_norm_eps", "mamba_dt_limit", "head_dims", "mascot"}
)


@given(st.dictionaries(st.sampled_from(KEYS), JUNK, max_size=3))
def test_any_config_gives_an_architecture_or_an_input_error(changes: dict[str, Any]) -> None:
    try:
        architecture, _ = parse_config(config_document(NANO_12B) | changes, "c")
    except InputError as error:
        assert str(error).startswith("c, ")  # noqa: PT017  # either outcome is right
    else:
        assert sum(math.prod(shape) for shape in architecture.tensor_shapes().values()) == architecture.parameters()
