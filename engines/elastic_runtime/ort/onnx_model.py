"""A model file under onnxruntime: one call in, logits and states out.

What a session does not show: every output by name, states handed in and out, and values inside the graph (taps).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from elastic_runtime.errors import BuildError, ElasticError, InputError
from elastic_runtime.ort.advice import UPDATE
from elastic_runtime.ort.onnx_memory import ort_value
from elastic_runtime.ort.pieces import output_of
from elastic_runtime.ort.twin import TOKEN_INPUTS, float32_twin, is_weight

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
State = dict[str, Array]
_QUIET = 3  # errors only: a warning per call says that TensorScatter copies, which our rules allow


class OnnxModel:
    """A loaded model on the CPU.

    Args:
        model: the file's content; external data must have been given as `weights`.
        weights: (input name, array) of every weight input, in the dtype the file asks for.
        rounded: run the rounded twin instead of the plain float32 one (no difference for a float32 model).
        taps: names of inner values that `run` gives besides the outputs.
        inner: inputs and outputs that are values of a larger graph (a piece's streams): float32 like states.
        wide_weights: take weights in float32 whatever the file asks for, so that no call converts them again.
        threads: of one op; 0 leaves the choice to onnxruntime.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        weights: Iterable[tuple[str, Array]],
        *,
        rounded: bool = False,
        taps: Sequence[str] = (),
        inner: Sequence[str] = (),
        wide_weights: bool = False,
        threads: int = 0,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET
        options.intra_op_num_threads = threads
        # One output that is kept would keep all that a session has allocated: measured 2 GB after a layer of a 12B.
        options.enable_cpu_mem_arena = False
        try:
            twin = float32_twin(model, rounded=rounded, wide_weights=wide_weights, inner=inner)
            twin.graph.output.extend(onnx.ValueInfoProto(name=name) for name in taps)
            self._session = onnxruntime.InferenceSession(
                twin.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except ElasticError:
            raise
        except Exception as error:  # onnx and onnxruntime refuse a file in many ways
            raise BuildError(
                "model.onnx", expected="a model onnxruntime loads", found=str(error).strip(), todo=UPDATE
            ) from error
        given = [value.name for value in twin.graph.input]
        self._tokens = [name for name in given if name in TOKEN_INPUTS]
        self._inner = [name for name in given if name in inner]
        self.state_shapes = {
            value.name: tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
            for value in twin.graph.input
            if value.name not in (*TOKEN_INPUTS, *inner) and not is_weight(value.name)
        }
        self.outputs = [value.name for value in twin.graph.output]
        self._wanted = {name for name in given if is_weight(name) and name not in inner}
        self.bind(weights)

    def bind(self, weights: Iterable[tuple[str, Array]]) -> None:
        """Take these weights from now on, all of them. Raises InputError: they are not those of the model."""
        self._kept = [
            (n, np.require(a, requirements=["C", "A"])) for n, a in weights
        ]  # an OrtValue keeps no array alive
        self._weights = {name: ort_value(array) for name, array in self._kept}
        if self._wanted != set(self._weights):
            differing = sorted(self._wanted ^ set(self._weights))
            raise InputError(
                "weights of the model",
                expected=f"{len(self._wanted)} inputs",
                found=f"differing {differing[:4]}",
                todo="export the bundle again",
            )

    def empty_state(self, batch: int, max_context: int, *, cache_fill: float = 0.0) -> State:
        """The state of new sequences. `cache_fill` stands in all cache rows: none may be read before it is written."""
        sizes = {"B": batch, "S": max_context}
        state = {}
        for name, shape in self.state_shapes.items():
            fill = cache_fill if "cache" in name else 0.0
            state[name] = np.full([sizes.get(d, d) for d in shape], fill, np.float32)
        return state

    def run(self, input_ids: Ints, position: Ints, length: Ints, state: Mapping[str, Array]) -> dict[str, Array]:
        """One call: ids [B, T], position [B], length [B] -> every output and tap by name. `state`, in which inner
        inputs stand too, is not modified."""
        tokens = {"input_ids": input_ids, "position": position, "length": length}
        arrays = {name: np.ascontiguousarray(tokens[name], np.int64) for name in self._tokens}
        arrays |= {n: np.ascontiguousarray(state[n], np.float32) for n in (*self.state_shapes, *self._inner)}
        feeds = {name: ort_value(array) for name, array in arrays.items()} | self._weights
        try:
            results = self._session.run_with_ort_values(self.outputs, feeds)
        except Exception as error:
            raise BuildError(
                "model.onnx", expected="a model onnxruntime runs", found=str(error).strip(), todo=UPDATE
            ) from error
        return dict(zip(self.outputs, (result.numpy() for result in results), strict=True))

    def new_state(self, outputs: Mapping[str, Array]) -> State:
        """The state among the outputs of `run`, by its input names."""
        missing = sorted({output_of(name) for name in self.state_shapes} - set(outputs))
        if missing:
            raise BuildError(
                "model.onnx",
                expected="an output for every state",
                found=f"no {missing[0]}",
                todo="export the bundle again",
            )
        return {name: outputs[output_of(name)] for name in self.state_shapes}

    def call(self, input_ids: Ints, position: Ints, length: Ints, state: Mapping[str, Array]) -> tuple[Array, State]:
        """One call as `run`: logits and the new state."""
        outputs = self.run(input_ids, position, length, state)
        return outputs["logits"], self.new_state(outputs)
