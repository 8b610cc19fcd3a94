"""The numbers of an architecture, against figures worked out by hand for the 12B shape."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from elastic_export.layers.budget import Budget
from elastic_export.layers.mamba2 import CONV, INNER, PROJECTED
from elastic_export.layers.mlp import MLP
from synthetic import NANO_12B, random_architecture, random_budget


def test_the_12b_shape() -> None:
    a = NANO_12B
    assert (a.pattern.count("M"), a.pattern.count("-"), a.pattern.count("*")) == (28, 28, 6)
    assert (a.size(INNER), a.size(CONV), a.size(PROJECTED)) == (10240, 12288, 22656)
    # 28 layers: 3 taps of 12288 BF16 channels, and 128 x 80 x 128 FP32 numbers.
    assert a.state_bytes(2) == 28 * 3 * 12288 * 2 + 28 * 128 * 80 * 128 * 4 == 148_865_024
    # 6 layers: keys and values of 8 heads of 128, BF16.
    assert a.kv_bytes_per_token(2) == 6 * 2 * 8 * 128 * 2 == 24_576


@pytest.mark.parametrize("seed", range(40))
def test_the_closed_form_is_the_sum_of_the_shapes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = random_architecture(rng)
    for architecture in (a, random_budget(a, rng).architecture(a)):
        shapes = architecture.tensor_shapes()
        assert architecture.parameters() == sum(math.prod(shape) for shape in shapes.values())
        states = [
            (state, math.prod(architecture.size(axis, layer.ordinal) for axis in state.axes if axis is not None))
            for state, layer in architecture.states()
        ]
        fixed = sum((4 if state.wide else 2) * elements for state, elements in states if not state.grows)
        assert architecture.state_bytes(2) == fixed
        assert architecture.kv_bytes_per_token(2) == sum(2 * elements for state, elements in states if state.grows)
        kinds = architecture.pattern
        assert len(shapes) == 3 + 9 * kinds.count("M") + 5 * kinds.count("*") + 3 * kinds.count("-")


def test_a_sub_models_layers_are_renumbered() -> None:
    b = replace(Budget.full(NANO_12B, "b"), ffn_sizes=tuple(range(100, 128)), skip_layers=(0, 1, 61))
    sub = b.architecture(NANO_12B)
    assert sub.pattern == NANO_12B.pattern[2:61]
    assert sub.ffn_sizes == tuple(range(101, 127))
    assert b.kept_layers(NANO_12B) == tuple(range(2, 61))
    assert [k for _, kind, k in sub.layers() if kind is MLP] == list(range(26))
