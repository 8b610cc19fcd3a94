"""The check of what a run cannot show: attributes whose wrong value moves the outputs too little, such as an epsilon.

They are read back from the file that ships and compared with the sub-model's architecture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx

from elastic_export.layers.architecture import Architecture
from elastic_export.reference.contract import load_contract
from elastic_export.verify.compare import Comparison, Difference

_DEFAULT_EPSILON = 1e-5  # of ONNX RMSNormalization


def check_attributes(model: onnx.ModelProto, arch: Architecture) -> Comparison:
    """Every norm's and every mixer's attributes against `arch`: relative differences, the worst node's of each."""
    worst: dict[str, Difference] = {}
    for name, found, expected in _attributes(model, arch):
        error = 0.0 if found == np.float32(expected) else _relative(found, expected)
        share = float(error > 0)
        if name not in worst or not error <= worst[name].error:
            worst[name] = Difference(name, error, abs(found - expected) if error else 0.0, 0, share)
    return Comparison(tuple(worst.values()), 1.0)


def _attributes(model: onnx.ModelProto, arch: Architecture) -> Iterator[tuple[str, float, float]]:
    """(op.attribute, found, expected) of every node that computes with a number of the config."""
    minimum, maximum = arch.time_step_limit
    mixer = {"n_groups": arch.ssm_groups, "head_dim": arch.mamba_head_dim, "state_size": arch.ssm_state}
    mixer_floats = {"epsilon": arch.epsilon, "time_step_min": minimum, "time_step_max": maximum}
    expected: dict[str, Mapping[str, float]] = {
        "RMSNormalization": {"epsilon": arch.epsilon},
        "Mamba2Mixer": {**mixer, **mixer_floats},
    }
    defaults: dict[str, Mapping[str, float]] = {
        "RMSNormalization": {"epsilon": _DEFAULT_EPSILON},
        "Mamba2Mixer": load_contract("mamba2_mixer").defaults,
    }
    for node in model.graph.node:
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for name, value in expected.get(node.op_type, {}).items():
            found = given.get(name, defaults[node.op_type].get(name, float("nan")))
            yield f"{node.op_type}.{name}", found, value


def _relative(found: float, expected: float) -> float:
    """Relative difference; infinite where one of the two is, or is missing."""
    distance = abs(found - expected)
    return distance / abs(expected) if distance < float("inf") and expected else float("inf")
