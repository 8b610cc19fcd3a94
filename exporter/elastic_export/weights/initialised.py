"""The ONNX file of a sliced sub-model with its weights in it: initializers whose bytes are those of the safetensors
files beside it, named by file, offset and length, so that any ONNX tool opens the sub-model and no byte lies twice.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from elastic_export.dtypes import DTYPES
from elastic_export.weights.sliced import INITIALISED
from elastic_runtime.errors import InternalError
from elastic_runtime.format.weights import StoredSlice, WeightRecipe


def write_initialised(model: Path, recipe: WeightRecipe) -> Path:
    """Write `INITIALISED` beside `model`, the same graph whose weight inputs are initializers; returns its path.

    Args:
        model: a file that `emit_model` wrote; its other inputs stay.
        recipe: where each weight lies, one whole tensor of a file in the folder of `model`.

    Raises:
        InternalError: a weight that is none of the file's inputs, or of another dtype or shape there.
    """
    proto = onnx.load(model, load_external_data=False)
    inputs = {value.name: value for value in proto.graph.input}
    for weight in recipe.inputs:
        [part] = weight.parts
        tensor = _external(weight.name, part)
        _check(inputs.pop(weight.name, None), tensor)
        proto.graph.initializer.append(tensor)
    del proto.graph.input[:]
    proto.graph.input.extend(inputs.values())
    path = model.with_name(INITIALISED)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path), full_check=True)
    return path


def _external(name: str, part: StoredSlice) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, dims=part.shape, data_type=DTYPES[part.dtype].ir.value)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", part.file), ("offset", part.offset), ("length", part.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _check(value: onnx.ValueInfoProto | None, tensor: onnx.TensorProto) -> None:
    """An initializer must be what the input in its place was."""
    found = None if value is None else value.type.tensor_type
    shape = () if found is None else tuple(d.dim_value for d in found.shape.dim)
    if found is None or (found.elem_type, shape) != (tensor.data_type, tuple(tensor.dims)):
        expected = f"an input of type {tensor.data_type} and shape {tuple(tensor.dims)}"
        raise InternalError(f"weight {tensor.name}", expected=expected, found="none" if found is None else f"{shape}")
