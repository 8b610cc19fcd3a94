"""Which matrices are kept in eight bits, how they are joined and called, and that odd ones are not."""

from __future__ import annotations

import math
from dataclasses import replace

from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.eight_bits import EightBits

ARCH = Architecture("M*-", 62, 24, (38,), (6,), 12, 2, 5, 3, 4, 2, 16, 1e-3, (0.0, math.inf))
FULL = Budget.full(ARCH, "full")


def test_linear_layers_head_and_embedding_in_the_order_of_the_parent() -> None:
    found = EightBits.of(ARCH, [FULL])
    assert not found.odd
    assert [(m.name, m.shape, m.rows, m.transposed) for m in found.matrices] == [
        ("backbone.embeddings.weight", (62, 24), 62, False),
        ("backbone.layers.0.mixer.in_proj.weight", (24, 170), 170, True),
        ("backbone.layers.0.mixer.out_proj.weight", (72, 24), 24, True),
        ("backbone.layers.1.mixer.qkv_proj.weight", (24, 128), 128, True),
        ("backbone.layers.1.mixer.o_proj.weight", (64, 24), 24, True),
        ("backbone.layers.2.mixer.up_proj.weight", (24, 38), 38, True),
        ("backbone.layers.2.mixer.down_proj.weight", (38, 24), 24, True),
        ("lm_head.weight", (24, 62), 62, True),
    ]
    joined = found.tensors["backbone.layers.1.mixer.k_proj.weight"]
    lead = "backbone.layers.1.mixer."
    assert joined.tensors == tuple(
        (f"{lead}{n}_proj.weight", shape) for n, shape in [("q", (64, 24)), ("k", (32, 24)), ("v", (32, 24))]
    )
    assert (joined.values, joined.scales) == (f"{lead}qkv_proj.weight.int8", f"{lead}qkv_proj.weight.scale")


def test_a_matrix_that_is_odd_in_the_parent_stays_as_it_is() -> None:
    odd = replace(ARCH, ffn_sizes=(37,), vocab_size=61)
    found = EightBits.of(odd, [], "model")
    assert found.odd == (
        "model.layers.2.mixer.up_proj.weight",
        "model.layers.2.mixer.down_proj.weight",
        "lm_head.weight",
    )
    assert "model.embeddings.weight" in found.tensors  # nothing is multiplied with it


def test_a_matrix_that_is_odd_in_one_budget_stays_in_all() -> None:
    found = EightBits.of(ARCH, [FULL, replace(FULL, name="odd", ffn_sizes=(37,))])
    assert found.odd == ("backbone.layers.2.mixer.up_proj.weight", "backbone.layers.2.mixer.down_proj.weight")


def test_a_budget_without_the_layer_does_not_count() -> None:
    assert not EightBits.of(ARCH, [replace(FULL, name="odd", ffn_sizes=(37,), skip_layers=(2,))]).odd


def test_joined_rows_are_counted_together() -> None:
    """An odd number of keys' and of values' rows each, an even one together with the queries'."""
    arch = replace(ARCH, attention_head_dim=1, kv_heads=1)
    assert not EightBits.of(arch, []).odd
