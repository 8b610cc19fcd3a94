"""The two lattices: zeros read off constants, needs that only grow, ties both ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from elastic_export.graph.lattices import Liveness

TEXT = """g (float[B,3] x, float[3] w) => (float[B,3] logits) <float[2,3] c = {0, 1, 0, 0, 2, 0}, float[B,3] y> {
  y = Mul(x, w)
  logits = Add(y, c)
}"""


def values(model: ir.Model) -> dict[str, ir.Value]:
    found = [*model.graph.inputs, *model.graph.initializers.values(), *(v for n in model.graph for v in n.outputs)]
    return {str(value.name): value for value in found}


def booleans(*flags: int) -> np.ndarray[Any, Any]:
    return np.array(flags, dtype=bool)


def test_zeros_of_a_constant_are_whole_slices(parse: Any) -> None:
    """A channel is zero where all elements of that index are: not where one is."""
    rows, columns = Liveness().zero(values(parse(TEXT))["c"])
    assert rows is not None
    assert columns is not None
    assert rows.tolist() == [False, False]
    assert columns.tolist() == [True, False, True]


def test_nothing_is_known_of_inputs_and_dynamic_axes(parse: Any) -> None:
    batch, channels = Liveness().zero(values(parse(TEXT))["x"])
    assert batch is None
    assert channels is not None
    assert not channels.any()


def test_all_channels_of_one_axis_zero_means_all_is_zero(parse: Any) -> None:
    live, c = Liveness(), values(parse(TEXT))["c"]
    live.set_zero(c, [booleans(1, 1), booleans(0, 0, 1)])
    assert live.is_zero(c)
    assert [axis.all() for axis in live.zero(c) if axis is not None] == [True, True]
    live.set_zero(c, [booleans(0, 1), booleans(0, 1, 1)])
    assert not live.is_zero(c)


def test_needs_only_grow_and_growth_is_told(parse: Any) -> None:
    live, x = Liveness(), values(parse(TEXT))["x"]
    live.require(x, 1, booleans(1, 0, 0))
    assert live.changed
    assert x in live.reached
    live.changed = False
    live.require(x, 1, booleans(1, 0, 0))
    live.require(x, 0, booleans(1))  # a dynamic axis stays whole without asking
    assert not live.changed
    live.require(x, 1, booleans(0, 1, 0))
    assert live.changed
    assert live.need(x)[1].tolist() == [True, True, False]  # type: ignore[union-attr]


def test_what_one_value_needs_is_not_aliased_to_another(parse: Any) -> None:
    live, found = Liveness(), values(parse(TEXT))
    flags = booleans(1, 0, 0)
    live.require(found["w"], 0, flags)
    live.require(found["w"], 0, booleans(0, 1, 0))
    assert flags.tolist() == [True, False, False]


def test_a_tie_takes_over_both_ways(parse: Any) -> None:
    live, found = Liveness(), values(parse(TEXT))
    live.require(found["x"], 1, booleans(1, 0, 0))
    live.require(found["w"], 0, booleans(0, 0, 1))
    live.tie(found["x"], 1, found["w"], 0)
    live.tie(found["x"], 0, found["w"], 0)  # a dynamic axis ties nothing
    assert live.need(found["x"])[1].tolist() == live.need(found["w"])[0].tolist() == [True, False, True]  # type: ignore[union-attr]
