"""The model bytes a build parses: the ONNX file with S fixed to max_context, its external data left where it is."""

from __future__ import annotations

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from elastic_export.engine.request import EngineRequest
from elastic_runtime.errors import InputError

CONTEXT_SYMBOL = "S"


def fixed_model(request: EngineRequest) -> bytes:
    """Serialized model of the request with every S of its inputs and outputs replaced by `max_context`.

    The cache update layer needs a static cache length when it is parsed, so the shape must be fixed before, not by an
    optimisation profile. The file on disk keeps its symbol: one file serves every context.

    Raises:
        InputError: the file is no ONNX model.
    """
    try:
        model = onnx.load(str(request.onnx), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise InputError(
            str(request.onnx), expected="an ONNX model", found=str(error), todo="name a model.onnx of a bundle"
        ) from error
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == CONTEXT_SYMBOL:
                dim.dim_value = request.max_context
    return bytes(model.SerializeToString(deterministic=True))
