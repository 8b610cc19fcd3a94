"""Weights in eight bits: the file with the right ones holds against the parent, and one with a fault is caught.

The odd matrices of this model stay as they are: both kinds meet in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from elastic_export.verify.slices import check_slices
from elastic_runtime.errors import InternalError

Arrays = dict[str, np.ndarray[Any, Any]]
LEAD = "backbone.layers."
IN_PROJ, QKV, O_PROJ = (f"{LEAD}{name}.weight" for name in ("3.mixer.in_proj", "1.mixer.qkv_proj", "1.mixer.o_proj"))


def arrays_of(model: Any) -> Arrays:
    return {name: np.array(array) for name, array in model.load(model.recipe(model.emitted))}


def test_the_right_ones_hold(in_eight_bits: Any, outcome: Any) -> None:
    model = in_eight_bits
    assert {name.split(".")[-2] for name in model.eight_bits.odd} == {"up_proj", "down_proj"}
    assert outcome(model, model.emitted) == ""
    check_slices(model.emitted, model.arch, model.budget, "backbone")


# ------------------------------------------------------------------------------------------------------- weights


def neighbours_scale(arrays: Arrays) -> None:
    scales = arrays[f"{IN_PROJ}.scale"]
    scales[5], scales[6] = scales[6], scales[5]


def queries_and_keys_exchanged(arrays: Arrays) -> None:
    """As many rows of the queries as there are keys."""
    values, scales = arrays[f"{QKV}.int8"], arrays[f"{QKV}.scale"]
    keys = 2 * 16
    first = len(scales) - 2 * keys
    for array in (values, scales):
        array[..., :keys], array[..., first : first + keys] = (
            array[..., first : first + keys].copy(),
            array[..., :keys].copy(),
        )


def values_of_another_sign(arrays: Arrays) -> None:
    arrays["lm_head.weight.int8"][:, 7] *= -1


def scales_too_small(arrays: Arrays) -> None:
    """As the row's own scale, and not what 128 is worth."""
    arrays["backbone.embeddings.weight.scale"][:] /= 128


def one_scale_a_matrix(arrays: Arrays) -> None:
    scales = arrays[f"{O_PROJ}.scale"]
    scales[:] = scales.max()


CHANGED: list[tuple[Callable[[Arrays], None], str]] = [
    (neighbours_scale, r"float32: .*logits"),
    (queries_and_keys_exchanged, r"float32: .*key_cache\.0"),
    (values_of_another_sign, r"float32: logits"),
    (scales_too_small, r"float32: .*logits"),
    (one_scale_a_matrix, r"float32: .*logits"),
]


@pytest.mark.parametrize(("change", "expected"), CHANGED, ids=[change.__name__ for change, _ in CHANGED])
def test_a_fault_in_the_stored_weights_is_caught(
    in_eight_bits: Any, outcome: Any, change: Callable[[Arrays], None], expected: str
) -> None:
    model = in_eight_bits
    arrays = arrays_of(model)
    change(arrays)
    assert re.search(expected, outcome(model, model.emitted, arrays.items()))


def test_runs_on_the_wrong_axes_are_caught(in_eight_bits: Any, outcome: Any) -> None:
    """Rows and columns of o_proj as if it lay as the checkpoint has it: 72 x 128, of which 56 x 64 stay."""
    model = in_eight_bits
    recipe = model.recipe(model.emitted)
    [item] = [item for item in recipe.inputs if item.name == f"{O_PROJ}.int8"]
    [part] = item.parts
    swapped = replace(part, runs=(((0, 64),), part.runs[1]))
    assert swapped.runs != part.runs
    wrong = replace(recipe, inputs=tuple(replace(item, parts=(swapped,)) if i is item else i for i in recipe.inputs))
    assert re.search(r"float32: .*logits", outcome(model, model.emitted, model.load(wrong)))


# ---------------------------------------------------------------------------------------------------------- file


def scales_on_the_columns(graph: onnx.GraphProto, arrays: Arrays) -> str:
    """The scales multiply what goes into o_proj, as if each belonged to a column, and nothing that comes out."""
    scales = arrays[f"{O_PROJ}.scale"]
    [scaled] = [node for node in graph.node if node.op_type == "Mul" and f"{O_PROJ}.scale" in node.input]
    [cast] = [node for node in graph.node if node.output[0] == scaled.input[0]]
    [at] = [i for i, node in enumerate(graph.node) if node.output[0] == cast.input[0]]
    product = graph.node[at]
    columns = onnx.numpy_helper.from_array(np.resize(scales, 64).astype(ml_dtypes.bfloat16), "columns")
    graph.initializer.extend([columns, onnx.numpy_helper.from_array(np.ones_like(scales), "ones")])
    before = onnx.helper.make_node("Mul", [product.input[0], "columns"], ["scaled columns"], name="scaled columns")
    product.input[0], scaled.input[1] = "scaled columns", "ones"
    [unread] = [value for value in graph.input if value.name == f"{O_PROJ}.scale"]
    graph.input.remove(unread)
    del arrays[unread.name]
    graph.node.insert(at, before)
    return r"float32: .*logits|error: "


def unit_forgotten(graph: onnx.GraphProto, _: Arrays) -> str:
    node = next(node for node in graph.node if node.op_type == "DequantizeLinear")
    [unit] = [tensor for tensor in graph.initializer if tensor.name == node.input[1]]
    one = onnx.helper.make_tensor(unit.name, unit.data_type, [], [1.0])
    unit.CopyFrom(one)
    return r"float32: .*logits"


def keys_and_values_split_the_other_way(graph: onnx.GraphProto, _: Arrays) -> str:
    """As wide as before."""
    [split] = [node for node in graph.node if node.op_type == "Split"]
    split.output[1], split.output[2] = split.output[2], split.output[1]
    return r"float32: .*key_cache\.0"


FILES = [scales_on_the_columns, unit_forgotten, keys_and_values_split_the_other_way]


@pytest.mark.parametrize("change", FILES, ids=[change.__name__ for change in FILES])
def test_a_fault_in_the_file_is_caught(
    in_eight_bits: Any, outcome: Any, change: Callable[[onnx.GraphProto, Arrays], str]
) -> None:
    model = in_eight_bits
    file, arrays = onnx.load(model.emitted.path), arrays_of(model)
    expected = change(file.graph, arrays)
    assert re.search(expected, outcome(model, model.rewritten(file), arrays.items()))


def test_scales_of_other_rows_than_their_values_are_caught(in_eight_bits: Any) -> None:
    """A recipe that verification could not tell from the right one, were the values' runs wrong as well."""
    model = in_eight_bits
    sources = dict(model.emitted.weight_sources)
    scale = sources[f"{IN_PROJ}.scale"]
    [part] = scale.parts
    first, (start, count), *rest = part.runs[0]
    shifted = replace(part, runs=((first, (start + 1, count), *rest), part.runs[1]))
    sources[f"{IN_PROJ}.scale"] = replace(scale, parts=(shifted,))
    with pytest.raises(InternalError, match=r"the same runs of .*in_proj"):
        check_slices(replace(model.emitted, weight_sources=sources), model.arch, model.budget, "backbone")
