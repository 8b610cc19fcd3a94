"""What happens within a card's memory: onnxruntime's values have no call to be zeroed, cut or copied where they lie.

Models of one node do it, on the provider of the card. Values go in and come out bound, so nothing passes through main
memory but a few numbers that say how much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from elastic_runtime.errors import BuildError
from elastic_runtime.ort.library import onnxruntime

_OPSET, _IR = 18, 8  # the oldest that have these operators as they are used here
_ERRORS_ONLY = 3


class CardCopies:
    """Work on values of float32; complete when a method returns. `providers` are those that compute on the card.

    Every method raises BuildError when the card fails.
    """

    def __init__(self, providers: Sequence[tuple[str, Mapping[str, str]]]) -> None:
        self._providers = [(name, dict(settings)) for name, settings in providers]
        self._sessions: dict[tuple[str, int], Any] = {}

    def zero(self, target: Any, shape: Sequence[int]) -> None:
        """Set a value of that shape to zero."""
        self._run("ConstantOfShape", len(shape), target, shape=list(shape))

    def cut(self, source: Any, target: Any, rank: int, axis: int, rows: int) -> None:
        """Copy the first `rows` of an axis into a value that has just these."""
        self._run("Slice", rank, target, source, starts=[0], ends=[rows], axes=[axis])

    def spread(self, source: Any, target: Any, rank: int, axis: int, missing: int) -> None:
        """The other way: copy a value into one that has so many rows more, which become zero."""
        pads = [0] * (2 * rank)
        pads[rank + axis] = missing
        self._run("Pad", rank, target, source, pads=pads)

    def _run(self, op: str, rank: int, target: Any, source: Any = None, **numbers: list[int]) -> None:
        try:
            session = self._sessions.get((op, rank)) or self._load(op, rank, list(numbers), source is not None)
            binding = session.io_binding()
            if source is not None:
                binding.bind_ortvalue_input("x", source)
            for name, values in numbers.items():
                binding.bind_cpu_input(name, np.array(values, np.int64))
            binding.bind_ortvalue_output("y", target)
            session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's own kinds have no base of theirs
            found = str(error).strip()
            raise BuildError(
                "card", expected=f"onnxruntime's {op} to run", found=found, todo="run on the CPU (--device cpu)"
            ) from error

    def _load(self, op: str, rank: int, numbers: Sequence[str], takes_value: bool) -> Any:
        shape = [f"d{axis}" for axis in range(rank)]
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)] if takes_value else []
        inputs += [helper.make_tensor_value_info(name, TensorProto.INT64, [f"n_{name}"]) for name in numbers]
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [f"y{axis}" for axis in range(rank)])
        node = helper.make_node(op, [value.name for value in inputs], ["y"])
        model = helper.make_model(
            helper.make_graph([node], op, inputs, [output]),
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR,
        )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=self._providers)
        self._sessions[(op, rank)] = session
        return session
