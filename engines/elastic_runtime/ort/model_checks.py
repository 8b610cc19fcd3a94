"""Whether a model is the one that a bundle's other files speak of."""

from __future__ import annotations

from typing import Literal

import onnx

from elastic_runtime.errors import InputError
from elastic_runtime.format.interface import logits_port, shape_text
from elastic_runtime.format.records import show
from elastic_runtime.format.weights import WeightRecipe
from elastic_runtime.ort.twin import is_weight

_AGAIN = "export the bundle again"
#: ONNX's number of each dtype of weights.json.
_STORED = {
    "bf16": onnx.TensorProto.BFLOAT16,
    "fp16": onnx.TensorProto.FLOAT16,
    "fp32": onnx.TensorProto.FLOAT,
    "int8": onnx.TensorProto.INT8,
}


def check_weights(model: onnx.ModelProto, recipe: WeightRecipe) -> None:
    """Whether a recipe says what a model asks for, before anything is read. Raises InputError about a weight.

    Widened to float32, one of another dtype would be taken for what it is not: two bytes are two bytes.
    """
    inputs = {value.name: value.type.tensor_type for value in model.graph.input if is_weight(value.name)}
    for item in recipe.inputs:
        if (wanted := inputs.pop(item.name, None)) is None:
            expected, found = "an input of the model", "none of that name"
        elif (wanted.elem_type, [dim.dim_value for dim in wanted.shape.dim]) != (_STORED[item.dtype], list(item.shape)):
            expected, found = "the model's shape and dtype", "others in weights.json"
        else:
            continue
        raise InputError(f"weight {show(item.name)}", expected=expected, found=found, todo=_AGAIN)
    if missing := next(iter(inputs), None):
        expected, found = "a weight of weights.json", "none of that name"
        raise InputError(f"model input {show(missing)}", expected=expected, found=found, todo=_AGAIN)


def check_logits(model: onnx.ModelProto, vocab_size: int, logits: Literal["last", "all"]) -> None:
    """Whether a manifest says what logits a model gives. Raises InputError."""
    expected = logits_port(vocab_size, every_token=logits == "all").shape
    output = next((value for value in model.graph.output if value.name == "logits"), onnx.ValueInfoProto())
    found = tuple(dim.dim_param or dim.dim_value for dim in output.type.tensor_type.shape.dim)
    if (len(found), found[-1:]) != (len(expected), expected[-1:]):
        said = f"{shape_text(expected)} as in manifest.json"
        raise InputError("model output logits", expected=said, found=shape_text(found), todo=_AGAIN)
