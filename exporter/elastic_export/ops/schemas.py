"""The ops of the parent graph as ONNX schemas: the exporter looks a custom op up in ONNX's registry.

They are there while it runs and no longer: ONNX asks a registered schema for types where it would else infer them from
the function body that an emitted file carries, and an op may ship under the name that it has in the parent graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

import onnx
from onnxscript import values

from elastic_export.ops.op import DOMAIN, Op

_FLOATS = ["tensor(float)", "tensor(double)", "tensor(float16)", "tensor(bfloat16)"]
_ATTRIBUTE_TYPES = {"int": onnx.defs.OpSchema.AttrType.INT, "float": onnx.defs.OpSchema.AttrType.FLOAT}


@cache
def opset() -> values.Opset:
    """Our domain, as the translations of the ops name it."""
    return values.Opset(DOMAIN, 1)


@contextmanager
def registered(ops: Iterable[Op]) -> Iterator[None]:
    """Let ONNX know the ops meanwhile."""
    known = [op for op in ops if not onnx.defs.has(op.name, DOMAIN)]
    for op in known:
        onnx.defs.register_schema(_schema(op))
    try:
        yield
    finally:
        for op in known:
            onnx.defs.deregister_schema(op.name, 1, DOMAIN)


def _schema(op: Op) -> onnx.defs.OpSchema:
    def operand(name: str) -> str:
        return "tensor(int64)" if name in op.integers else "T"

    parameter, attribute = onnx.defs.OpSchema.FormalParameter, onnx.defs.OpSchema.Attribute
    return onnx.defs.OpSchema(
        op.name,
        DOMAIN,
        1,
        inputs=[parameter(name, operand(name)) for name in op.inputs],
        outputs=[parameter(name, operand(name)) for name in op.outputs],
        type_constraints=[("T", _FLOATS, "activations, weights and states of the parent graph")],
        attributes=[attribute(name, _ATTRIBUTE_TYPES[kind], required=True) for name, kind in op.attributes.items()],
    )
