"""The rules of the elastic ops on graphs of one layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from elastic_export.graph.facts import facts_of
from elastic_export.graph.values import initializer
from elastic_export.passes.narrow import Narrow
from elastic_export.passes.narrow.analysis import analyse, known_zeros
from elastic_runtime.errors import InternalError

# Two groups of two heads of two positions, one state, two taps: z 8 | x 8 | B 2 | C 2 | dt 4.
MIXER = """g (float[B,T,24] p, float[12,1,2] w1, float[12] w2, float[4] w3, float[4] w4, float[4] w5, float[8] w6,
  int64[B] length, float[B,1,12] conv_state.0, float[B,4,2,1] ssm_state.0)
=> (float[B,T,1] logits, float[B,1,12] conv_state_out.0, float[B,4,2,1] ssm_state_out.0)
<float[24] rows = {%s}, float[8] mask = {%s}, float[B,T,24] q, float[B,T,8] y,
 float[8,1] m = {1, 1, 1, 1, 1, 1, 1, 1}> {
  q = Mul(p, rows)
  y, conv_state_out.0, ssm_state_out.0 = elastic.MaskedMamba2Mixer <n_groups: int = 2, head_dim: int = 2,
    state_size: int = 1, epsilon: float = 0.25, time_step_min: float = 0.0, time_step_max: float = 0.5>
    (q, w1, w2, w3, w4, w5, w6, length, conv_state.0, ssm_state.0, mask)
  logits = MatMul(y, m)
}"""
QUERY = """g (int64[B] position, float[B,T,8] q, float[B,T,4] k, float[B,T,4] v, float[B,2,S,2] key_cache.0,
  float[B,2,S,2] value_cache.0)
=> (float[B,T,1] logits, float[B,2,S,2] key_cache_out.0, float[B,2,S,2] value_cache_out.0)
<float[8] heads = {%s}, float[B,T,8] y, float[B,T,8] h, float[8,1] m = {1, 1, 1, 1, 1, 1, 1, 1}> {
  y, key_cache_out.0, value_cache_out.0 = elastic.CachedAttention <num_heads: int = 4,
    num_key_value_heads: int = 2, head_dim: int = 2, scale: float = 0.5> (q, k, v, key_cache.0, value_cache.0, position)
  h = Mul(y, heads)
  logits = MatMul(h, m)
}"""


def mixer(parse: Any, heads: list[int], inside: list[int]) -> ir.Model:
    channels = np.outer(heads, inside).ravel().tolist()
    rows = [*channels, *channels, 1, 1, 1, 1, *heads]
    return parse(MIXER % (", ".join(map(str, rows)), ", ".join(map(str, channels))))  # type: ignore[no-any-return]


def kept(model: ir.Model) -> dict[str, list[list[int] | None]]:
    live = analyse(model)
    return {
        str(v.name): [None if a is None else np.flatnonzero(a).tolist() for a in live.need(v)]
        for v in model.graph.inputs
    }


def test_mixer_keeps_live_heads_and_positions_and_all_of_b_and_c(parse: Any) -> None:
    """Head 0 of the first group, head 3 of the second, position 1 of each."""
    found = kept(mixer(parse, [1, 0, 0, 1], [0, 1]))
    assert found["p"][2] == [1, 7, 8 + 1, 8 + 7, 16, 17, 18, 19, 20, 23]
    assert found["w1"] == [[1, 7, 8, 9, 10, 11], [0], [0, 1]]
    assert found["w2"] == [[1, 7, 8, 9, 10, 11]]
    assert found["w3"] == found["w4"] == found["w5"] == [[0, 3]]
    assert found["w6"] == [[1, 7]]
    assert found["conv_state.0"] == [None, [0], [1, 7, 8, 9, 10, 11]]
    assert found["ssm_state.0"] == [None, [0, 3], [1], [0]]


def test_mixer_is_told_its_new_head_size(parse: Any) -> None:
    model = mixer(parse, [1, 0, 0, 1], [0, 1])
    Narrow()(model)
    [node] = [n for n in model.graph if n.op_type == "MaskedMamba2Mixer"]
    assert node.attributes["head_dim"].as_int() == 1
    assert node.attributes["n_groups"].as_int() == 2
    assert facts_of(model).states["ssm_state.0"].runs == (None, ((0, 1), (3, 1)), ((1, 1),), ((0, 1),))


def test_masked_z_makes_y_zero(parse: Any) -> None:
    model = mixer(parse, [1, 0, 1, 0], [1, 1])
    y = next(n for n in model.graph if n.op_type == "MaskedMamba2Mixer").outputs[0]
    assert known_zeros(model).zero(y)[2].tolist() == [False, False, True, True] * 2  # type: ignore[union-attr]


@pytest.mark.parametrize(("heads", "per_group"), [([1, 1, 1, 0], "2, 1"), ([0, 0, 1, 1], "0, 2")])
def test_unequal_groups_are_an_error(heads: list[int], per_group: str, parse: Any) -> None:
    model = mixer(parse, heads, [1, 1])
    text = rf"MaskedMamba2Mixer\): expected the same number of heads in every SSM group, found \[{per_group}\]"
    with pytest.raises(InternalError, match=text):
        Narrow()(model)


def test_rows_asked_for_by_somebody_else_are_an_error(parse: Any) -> None:
    """The masked rows of a dead head, read by a sum besides: no mixer can have them."""
    model = mixer(parse, [1, 0, 1, 0], [1, 1])
    node = next(n for n in model.graph if n.op_type == "MaskedMamba2Mixer")
    source, old = node.inputs[0], model.graph.outputs[0]
    assert source is not None
    total = ir.node("MatMul", [source, initializer(model.graph, "ones", np.ones((24, 1), np.float32))], name="reader")
    total.outputs[0].name, total.outputs[0].type, total.outputs[0].shape = "all", old.type, old.shape
    both = ir.node("Add", [old, total.outputs[0]], name="both")
    both.outputs[0].name, both.outputs[0].type, both.outputs[0].shape = "logits2", old.type, old.shape
    model.graph.extend([total, both])
    model.graph.outputs[0] = both.outputs[0]
    everything = next(iter(model.graph))  # rows without zeros: every row is needed by the sum
    everything.replace_input_with(1, initializer(model.graph, "all_rows", np.ones(24, np.float32)))
    text = r"expected rows of whole heads, and of the same positions in every head, found 24 rows needed where such a"
    with pytest.raises(InternalError, match=text):
        Narrow()(model)


def test_attention_keeps_whole_queries_and_all_keys(parse: Any) -> None:
    """The second query head of each KV group goes with all its channels; keys, values and caches stay."""
    found = kept(parse(QUERY % "1, 1, 0, 0, 1, 1, 0, 0"))
    assert found["q"][2] == [0, 1, 4, 5]
    assert found["k"][2] == found["v"][2] == [0, 1, 2, 3]
    assert found["key_cache.0"] == found["value_cache.0"] == [None, [0, 1], None, [0, 1]]


def test_attention_counts_the_heads_it_keeps(parse: Any) -> None:
    model = parse(QUERY % "1, 1, 0, 0, 1, 1, 0, 0")
    Narrow()(model)
    (node,) = [node for node in model.graph if node.op_type == "CachedAttention"]
    found = {name: attribute.value for name, attribute in node.attributes.items()}
    assert found == {"num_heads": 2, "num_key_value_heads": 2, "head_dim": 2, "scale": 0.5}


def test_half_a_query_head_is_a_whole_one(parse: Any) -> None:
    assert kept(parse(QUERY % "1, 0, 0, 0, 0, 1, 0, 0"))["q"][2] == [0, 1, 4, 5]


def test_unequal_query_heads_are_an_error(parse: Any) -> None:
    text = r"CachedAttention\): expected the same number of query heads in every KV group, found \[1, 2\]"
    with pytest.raises(InternalError, match=text):
        Narrow()(parse(QUERY % "1, 1, 0, 0, 1, 1, 1, 1"))


NORM = """g (float[B,3] x, float[3] w, float[1,3] w2) => (float[B,1] logits)
<float[3] m = {1, 0, 1}, float[B,3] y, float[3,1] t> {
  y = elastic.MaskedRMSNorm <epsilon: float = 0.25> (x, w, m)
  t = Transpose <perm: ints = [1, 0]> (w2)
  logits = MatMul(y, t)
}"""


def test_norm_asks_for_its_unmasked_channels_alike_everywhere(parse: Any) -> None:
    found = kept(parse(NORM))
    assert found == {"x": [None, [0, 2]], "w": [[0, 2]], "w2": [[0], [0, 2]]}


def test_norm_keeps_an_unmasked_channel_that_nobody_reads(parse: Any) -> None:
    """It counts in the mean."""
    text = NORM.replace("<float[3] m", "<float[3] c = {1, 0, 0}, float[B,3] z, float[3] m")
    model = parse(text.replace("  logits = MatMul(y, t)", "  z = Mul(y, c)\n  logits = MatMul(z, t)"))
    assert kept(model)["x"] == [None, [0, 2]]


def test_last_token_passes_channels_through(parse: Any) -> None:
    model = parse("""g (float[B,T,3] x, int64[B] length) => (float[B,1] logits)
<float[3] c = {1, 0, 1}, float[B,T,3] a, float[B,3] y, float[3,1] m = {1, 1, 1}> {
  a = Mul(x, c)
  y = elastic.LastToken(a, length)
  logits = MatMul(y, m)
}""")
    assert kept(model)["x"] == [None, None, [0, 2]]
