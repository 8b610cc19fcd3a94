"""Embedded weights: the same model with its weights as external data beside the file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from elastic_export.emit.emit import IR_DTYPES, EmittedModel

_SMALL = 1 << 10  # bytes; constants below stay inside the file


def embed_weights(model: EmittedModel, read: Callable[[str], np.ndarray]) -> None:
    """Rewrite an emitted file so that its weight inputs are initializers with external data.

    Args:
        model: the emitted model; its file is replaced and `<file>.data` written beside it.
        read: weight input name -> the sliced array, in the dtype its port has.
    """
    graph_model = ir.load(model.path)
    graph, inputs = graph_model.graph, {value.name: value for value in graph_model.graph.inputs}
    dtypes = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
    for port in model.weights:
        value = inputs[port.name]
        graph.inputs.remove(value)
        shape = ir.Shape(list(port.shape))
        value.const_value = ir.LazyTensor(
            lambda name=port.name: ir.tensor(read(name), name=name),  # type: ignore[misc]
            dtype=IR_DTYPES[dtypes[port.dtype]],
            shape=shape,
            name=port.name,
        )
        graph.register_initializer(value)
    ir.save(graph_model, model.path, external_data=f"{model.path.name}.data", size_threshold_bytes=_SMALL)
