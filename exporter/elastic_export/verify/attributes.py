"""The check of what a run cannot show: attributes whose wrong value moves the outputs too little, such as an epsilon.

They are read back from the file that ships and compared with the sub-model's architecture.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from elastic_export.layers.architecture import Architecture
from elastic_export.ops.all_ops import SHIPPED_NODES
from elastic_export.verify.compare import Comparison, Difference


def check_attributes(model: onnx.ModelProto, arch: Architecture) -> Comparison:
    """Attributes of all norms and ops of ours against `arch`: relative differences, the worst node's of each."""
    worst: dict[str, Difference] = {}
    for name, found, expected in _attributes(model, arch):
        error = 0.0 if found == np.float32(expected) else _relative(found, expected)
        share = float(error > 0)
        if name not in worst or not error <= worst[name].error:
            worst[name] = Difference(name, error, abs(found - expected) if error else 0.0, 0, share)
    return Comparison(tuple(worst.values()), 1.0)


def _attributes(model: onnx.ModelProto, arch: Architecture) -> Iterator[tuple[str, float, float]]:
    """(op.attribute, found, expected) of every node that computes with a number of the config."""
    for node in model.graph.node:
        op, shipped = SHIPPED_NODES.get((node.domain, node.op_type), (None, None))
        if op is None or shipped is None:
            continue
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for name, value in op.expected(arch).items():
            yield f"{node.op_type}.{name}", given.get(name, shipped.defaults.get(name, float("nan"))), value


def _relative(found: float, expected: float) -> float:
    """Relative difference; infinite where one of the two is, or is missing."""
    distance = abs(found - expected)
    return distance / abs(expected) if distance < float("inf") and expected else float("inf")
