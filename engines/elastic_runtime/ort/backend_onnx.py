"""The onnxruntime backend: model.onnx or its float32 twin, states in two banks of buffers that swap after every call.

Everything is bound once: a decode step writes three small inputs, runs, and reads the logits, which are in main memory
wherever the rest is (onnx_memory.py). In main memory the caches begin small and double when a sequence outgrows them,
for onnxruntime reads and copies all of a cache at every call; on a card they are whole from the beginning, since what a
smaller one took would stay taken beside the larger one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from elastic_runtime.backend import DeviceName, Floats, Ints, Origin, SavedStates, closed, not_of_this_backend
from elastic_runtime.errors import BuildError, InputError, NoCudaError
from elastic_runtime.ort.advice import UPDATE
from elastic_runtime.ort.library import onnxruntime
from elastic_runtime.ort.onnx_memory import Buffer, HostMemory, Memory, check_providers, ort_value
from elastic_runtime.ort.twin import TOKEN_INPUTS, float32_twin, is_weight

Array = npt.NDArray[Any]
_QUIET = 3  # errors only: a warning per call says that TensorScatter copies, which our rules allow
_FIRST_ROWS = 256  # of a cache that grows
_Bank = dict[str, Buffer]  # one set of states, by input name
_Prepared = tuple[Any, tuple[Buffer, ...], Floats]  # a call: binding, token inputs, logits


class OnnxStates:
    """`SavedStates` of this backend: buffers where it computes, or arrays in main memory. `rows` is how many its caches
    had, `shapes` are the model's own, with their symbols.
    """

    def __init__(
        self, parts: dict[str, Array | Buffer], device: DeviceName, rows: int, shapes: Mapping[str, tuple[Any, ...]]
    ) -> None:
        self.parts, self.device, self.rows, self.shapes = parts, device, rows, shapes

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts.values())

    def free(self) -> None:
        """See `SavedStates`."""
        self.parts = {}


class OnnxBackend:
    """A model under onnxruntime; a `Backend`.

    Args:
        model: the file's content.
        weights: (input name, array) of every weight input; float32 where `wide_weights`, else as the file has them.
        wide_weights: run the twin that takes float32 weights, faster and twice as large as a 16-bit model.
        max_tokens: most tokens of a call.
        max_context: most tokens of a sequence.
        max_batch: most rows.
        rows: of the states that are made with it, so that who opens it learns whether there is room for them.
        threads: of one op; 0 leaves the choice to onnxruntime.
        memory: where it computes and keeps weights and states; main memory unless given.
        profile: what the file begins with that onnxruntime's profile of the session goes to; None: no profile.
        origin: the bundle and budget of the model.

    Raises:
        NoCudaError: onnxruntime does not start on the card, or fell back to the CPU; no weight was read.
        UnavailableError: the card has no room.
        BuildError: onnxruntime does not take the model.
        InputError: the weights are not those that the model asks for.
    """

    name = "onnxruntime"

    def __init__(
        self,
        model: onnx.ModelProto,
        weights: Iterable[tuple[str, Array]],
        *,
        wide_weights: bool,
        max_tokens: int,
        max_context: int,
        max_batch: int = 1,
        rows: int = 1,
        threads: int = 0,
        memory: Memory | None = None,
        profile: Path | None = None,
        origin: Origin = Origin(),  # noqa: B008  # frozen
    ) -> None:
        self.origin = origin
        self._memory: Memory = memory or HostMemory()
        self.device = self._memory.device
        self.max_tokens, self.max_context, self.max_batch = max_tokens, max_context, max_batch
        twin = float32_twin(model, wide_weights=wide_weights)
        self.session = _load(twin, threads, self._memory, profile)
        self.weights = _bind_weights(twin, weights, self._memory)
        self._shapes = {
            value.name: tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
            for value in twin.graph.input
            if value.name not in TOKEN_INPUTS and not is_weight(value.name)
        }
        logits = next(value for value in twin.graph.output if value.name == "logits")
        shape = logits.type.tensor_type.shape.dim
        self.vocab_size, self._every_token = int(shape[-1].dim_value), len(shape) == 3
        self._current, self._closed = 0, False
        self._first_rows = min(_FIRST_ROWS, max_context) if self._memory.grows else max_context
        self._allocate(rows, self._first_rows)

    def start(self, batch: int) -> None:
        """Zero the states; memory is kept where the batch is the same."""
        self._check_open()
        self._current = 0
        if self._batch != batch or not self._rows:
            self._allocate(batch, self._first_rows)
        for buffer in self._banks[0].values():
            buffer.zero()  # caches too: a NaN left in a masked row would reach the logits, for 0 * NaN is NaN

    def call_size(self, wanted: int, most: int) -> int:
        """As many as can be: onnxruntime compiles nothing for a length, and padding would be computed."""
        return min(wanted, most, self.max_tokens)

    def call(self, input_ids: Ints, position: Ints, length: Ints) -> Floats:
        """One call (`Backend.call`)."""
        self._check_open()
        tokens = input_ids.shape[1]
        end = int(position.max()) + tokens
        if end > self._rows:
            self._grow(end)
        binding, inputs, logits = self._binding(tokens)
        for buffer, values in zip(inputs, (input_ids, position, length), strict=True):
            buffer.write(values)
        try:
            self.session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's own kinds have no base of theirs
            raise BuildError(
                "onnxruntime", expected="the call to succeed", found=str(error).strip(), todo=UPDATE
            ) from error
        self._current = 1 - self._current
        return logits[np.arange(self._batch), np.maximum(length - 1, 0)] if self._every_token else logits

    def save(self, rows: int, device: DeviceName) -> OnnxStates:
        """A copy of the bank that is read next (`Backend.save`)."""
        self._check_open()
        parts: dict[str, Array | Buffer] = {}
        for name, buffer in self._banks[self._current].items():
            axis, size = self._row_axis(name)
            part = buffer.head(axis, size or max(rows, 1))  # values of no bytes are none
            parts[name] = part if device == self.device else part.read()
        return OnnxStates(parts, device, self._rows, self._shapes)

    def load(self, saved: SavedStates) -> None:
        """See `Backend.load`. Caches get as many rows as they had: over others, the last bits of sums are others."""
        self._check_open()
        if not isinstance(saved, OnnxStates):
            raise not_of_this_backend("those of another")
        if saved.shapes != self._shapes:
            raise not_of_this_backend("those of another model")
        if not saved.parts:
            raise not_of_this_backend("none, for it was closed")
        self._current = 0
        if self._rows != saved.rows:
            self._allocate(self._batch, saved.rows)
        for name, buffer in self._banks[0].items():
            buffer.spread(saved.parts[name], self._row_axis(name)[0])

    def _row_axis(self, name: str) -> tuple[int, int | None]:
        """The axis of a cache's rows, which are as many as there are; for another state its last axis and all of it."""
        shape = self._shapes[name]
        return (shape.index("S"), None) if "S" in shape else (len(shape) - 1, int(shape[-1]))

    def states(self) -> Mapping[str, Array]:
        """A copy of every state."""
        self._check_open()
        return {name: np.array(buffer.read()) for name, buffer in self._banks[self._current].items()}

    def memory(self) -> Mapping[str, int]:
        """Bytes of the weights and of both banks of states; those on a card are called so."""
        where = " on the card" if self.device == "gpu" else ""
        states = sum(buffer.nbytes for bank in self._banks for buffer in bank.values())
        return {f"weights{where}": sum(b.nbytes for b in self.weights.values()), f"states{where}": states}

    def close(self) -> None:
        """Let go of model, weights and states."""
        if self._closed:
            return
        self._closed = True
        self._prepared.clear()
        self._banks.clear()
        self.weights.clear()
        del self.session

    def _check_open(self) -> None:
        if self._closed:
            raise closed(self.name)

    def _allocate(self, batch: int, rows: int) -> None:
        sizes = {"B": batch, "S": rows}
        shapes = {name: [sizes.get(d, d) for d in shape] for name, shape in self._shapes.items()}
        # The old banks go first, to make room. Where there is none all the same, the caches are of no rows.
        self._rows, self._banks = 0, list[_Bank]()
        self._prepared: dict[tuple[int, int], _Prepared] = {}
        self._banks += [{n: self._memory.zeros(s, np.float32) for n, s in shapes.items()} for _ in range(2)]
        self._batch, self._rows = batch, rows

    def _grow(self, end: int) -> None:
        """Double the caches until they hold `end` rows, and take the states along; in main memory (`Memory.grows`)."""
        rows, old = self._rows, {name: buffer.read() for name, buffer in self._banks[self._current].items()}
        while rows < end:
            rows *= 2
        self._allocate(self._batch, min(rows, self.max_context))
        for name, buffer in self._banks[self._current].items():
            buffer.read()[tuple(slice(size) for size in old[name].shape)] = old[name]

    def _binding(self, tokens: int) -> _Prepared:
        """The prepared call of `tokens` tokens that reads the current bank; decode's two are kept, and a prompt's."""
        key = (tokens, self._current)
        if key not in self._prepared:
            if len(self._prepared) > 8:
                self._prepared = {k: v for k, v in self._prepared.items() if k[0] in (1, self.max_tokens)}
            self._prepared[key] = self._prepare(tokens)
        return self._prepared[key]

    def _prepare(self, tokens: int) -> _Prepared:
        batch, before, after = self._batch, self._banks[self._current], self._banks[1 - self._current]
        inputs = tuple(self._memory.zeros(shape, np.int64) for shape in ((batch, tokens), (batch,), (batch,)))
        rows = (batch, tokens) if self._every_token else (batch,)
        logits = np.zeros((*rows, self.vocab_size), np.float32)
        binding = self.session.io_binding()
        for name, buffer in (*zip(TOKEN_INPUTS, inputs, strict=True), *self.weights.items()):
            binding.bind_ortvalue_input(name, buffer.value)
        for name in self._shapes:
            kind, ordinal = name.split(".")
            binding.bind_ortvalue_input(name, before[name].value)
            binding.bind_ortvalue_output(f"{kind}_out.{ordinal}", after[name].value)
        binding.bind_ortvalue_output("logits", ort_value(logits))
        return binding, inputs, logits


def widened(array: Array) -> Array:
    """A float array as float32, of which bfloat16 is the upper half; int8 values stay, a twin dequantises them."""
    if array.dtype == np.int8:
        return array
    if array.dtype.name == "bfloat16":
        return np.left_shift(array.view(np.uint16), 16, dtype=np.uint32).view(np.float32)
    return array.astype(np.float32, copy=False)


def _load(twin: onnx.ModelProto, threads: int, memory: Memory, profile: Path | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    providers = [(name, dict(settings)) for name, settings in memory.providers]
    try:  # without onnxruntime's own fallback, which prints to standard output
        session = onnxruntime.InferenceSession(
            twin.SerializeToString(), options, providers=providers, enable_fallback=0
        )
    except Exception as error:
        if memory.device == "gpu":  # its provider did not start, as far as one can tell
            raise NoCudaError(f"a refusal: {str(error).strip()}") from error
        raise BuildError(
            "model.onnx", expected="a model onnxruntime runs", found=str(error).strip(), todo=UPDATE
        ) from error
    check_providers(session, memory)
    return session


def _bind_weights(twin: onnx.ModelProto, weights: Iterable[tuple[str, Array]], memory: Memory) -> dict[str, Buffer]:
    """Each weight where the model computes; on a card one array after the other, none of which stays here."""
    held = {
        name: memory.holding(np.require(array, requirements=["C", "A"])) for name, array in weights
    }  # a view of a file may be at any byte
    wanted = {value.name for value in twin.graph.input if is_weight(value.name)}
    if wanted != set(held):
        differing = sorted(wanted ^ set(held))
        raise InputError(
            "weights of the model",
            expected=f"{len(wanted)} inputs",
            found=f"differing {differing[:4]}",
            todo="export the bundle again",
        )
    return held
