"""RemoveFullMasks: masks of ones go, masked ops become plain; a zero in a mask is an error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from elastic_export.passes.remove_full_masks import RemoveFullMasks
from elastic_runtime.errors import InternalError

NORM = """g (float[B,3] x, float[3] w) => (float[B,3] logits)
<float[B,3] a, float[3] m = {1, 1, 1}, float[3] n = {%s}> {
  a = Mul(x, m)
  logits = elastic.MaskedRMSNorm <epsilon: float = 0.25> (a, w, n)
}"""
PLAIN_NORM = """g (float[B,3] x, float[3] w) => (float[B,3] logits) {
  logits = RMSNormalization <axis: int = -1, epsilon: float = 0.25> (x, w)
}"""
# B, T, H = 2, P = 2, G = 1, N = 1, K = 2: di = 4, dc = 6
MIXER = """g (float[B,T,12] p, float[6,1,2] w1, float[6] w2, float[2] w3, float[2] w4, float[2] w5, float[4] w6,
  int64[B] length, float[B,1,6] conv_state.0, float[B,2,2,1] ssm_state.0)
=> (float[B,T,4] logits, float[B,1,6] conv_state_out.0, float[B,2,2,1] ssm_state_out.0) <float[4] m = {1, 1, 1, 1}> {
  logits, conv_state_out.0, ssm_state_out.0 = elastic.%s <n_groups: int = 1, head_dim: int = 2, state_size: int = 1,
    epsilon: float = 0.25, time_step_min: float = 0.0, time_step_max: float = 0.5>
    (p, w1, w2, w3, w4, w5, w6, length, conv_state.0, ssm_state.0%s)
}"""


def test_norm_before_and_after(parse: Any, canonical: Any, evaluate: Any, feeds_of: Any) -> None:
    model = parse(NORM % "1, 1, 1")
    feeds = feeds_of(model, B=2)
    expected = evaluate(model, feeds)
    assert RemoveFullMasks()(model).modified
    assert canonical(model) == canonical(parse(PLAIN_NORM))
    np.testing.assert_allclose(evaluate(model, feeds)["logits"], expected["logits"], rtol=1e-6)


def test_mixer_before_and_after(parse: Any, canonical: Any, evaluate: Any, feeds_of: Any) -> None:
    model = parse(MIXER % ("MaskedMamba2Mixer", ", m"))
    feeds = feeds_of(model, B=2, T=3) | {"length": np.array([3, 2])}
    expected = evaluate(model, feeds)
    assert RemoveFullMasks()(model).modified
    assert canonical(model) == canonical(parse(MIXER % ("Mamba2Mixer", "")))
    found = evaluate(model, feeds)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_a_masked_channel_left_is_an_error(parse: Any) -> None:
    model = parse(NORM % "1, 0, 1")
    next(n for n in model.graph if n.op_type == "MaskedRMSNorm").name = "culprit"
    text = (
        r"^node culprit \(elastic::MaskedRMSNorm\): expected a mask of ones after narrowing, "
        r"found a masked channel left\."
    )
    with pytest.raises(InternalError, match=text):
        RemoveFullMasks()(model)


@pytest.mark.parametrize(
    "text",
    [
        "g (float[B,3] x) => (float[B,3] logits) <float[3] m = {1, 0, 1}> { logits = Mul(x, m) }",
        "g (float[3] x) => (float[2,3] logits) <float[2,3] m = {2, 1, 1, 1, 1, 1}> { logits = Mul(x, m) }",
        "g (float[B,3] x) => (float[B,3] logits) <float[3] m = {1, 1, 1}> { logits = Add(x, m) }",
        "g (float[B,3] x) => (float[B,3] logits) { logits = Mul(x, x) }",
    ],
)
def test_it_must_not_fire_on_other_products(text: str, parse: Any, canonical: Any) -> None:
    model = parse(text)
    assert not RemoveFullMasks()(model).modified
    assert canonical(model) == canonical(parse(text))


def test_ones_that_broadcast_are_left_and_told(parse: Any) -> None:
    """Mul(x, 1) that changes the shape cannot be dropped: an error, never a silent leftover."""
    model = parse("g (float[3] x) => (float[2,3] logits) <float[2,3] m = {1, 1, 1, 1, 1, 1}> { logits = Mul(x, m) }")
    with pytest.raises(InternalError, match="expected no trace of a mask, found Mul"):
        RemoveFullMasks()(model)
