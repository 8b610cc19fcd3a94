"""The oracle's side: the masked parent in PyTorch, its states cut to the sub-model's channels.

The run goes layer by layer and not call by call: the calls are known beforehand, so each layer's weights are read once,
serve every row and call, and are dropped. A parent larger than the memory can be verified so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from elastic_export.graph.facts import StateSlice
from elastic_export.layers.architecture import Architecture
from elastic_export.reference import ElasticModel, Masks, State, empty_state
from elastic_export.reference.call import Call
from elastic_export.reference.model import Block
from elastic_export.verify.plan import Plan
from elastic_runtime.errors import InputError

Array = npt.NDArray[np.float32]
Read = Callable[[str], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Snapshot:
    """After one call: logits [B, V], or [B, T, V] of every token, and every state of the sub-model [B, …].

    Logits of rows of length 0 and of tokens past the length are unspecified (zero on the oracle's side).
    """

    logits: Array
    states: dict[str, Array]

    def real_logits(self, row: int, length: int) -> Array:
        """[n, V]: of a row with `length` real tokens the last one's logits, or those of all real tokens."""
        logits: Array = self.logits[row]
        return logits[:length] if logits.ndim == 2 else logits[None][:length]


@dataclass
class _Track:
    """One row of the batch, fed alone and without padding: the residual stream of each call and the states after it."""

    row: int
    calls: list[Call]
    streams: list[Tensor | None]
    history: list[State]
    logits: list[Array] = field(default_factory=list)


class Oracle:
    """The parent, its weights read when a layer needs them.

    Args:
        arch: the parent.
        read: tensor name -> float32 array, rounded as the export stores it.
        prefix: name of the backbone in the checkpoint.
    """

    def __init__(self, arch: Architecture, read: Read, prefix: str) -> None:
        self.architecture, self._read = arch, read
        with torch.device("meta"):
            self._model = ElasticModel(arch, prefix)

    def run(
        self, masks: Masks, slices: Sequence[StateSlice], plan: Plan, *, every_token: bool = False
    ) -> list[Snapshot]:
        """The masked parent's answer to every call of a plan, in float32.

        Rows run one at a time with T = length: what the batch of the other side must not mix up or pad into.

        Raises:
            InputError: a value of its own is not finite; names the tensor that holds one, else the layer.
        """
        tracks = [self._track(masks, plan, row) for row in range(len(plan.ids))]
        with torch.inference_mode():
            with self._loaded(self._model.body.get_submodule("embeddings"), f"{self._model.prefix}.embeddings"):
                for track in tracks:
                    self._embed(track, plan)
                self._check_finite(tracks, self._model.body.get_submodule("embeddings"), "embeddings")
            for index, kind, ordinal in self.architecture.layers():
                states = [f"{state.kind}.{ordinal}" for state in kind.states]
                with self.loaded_layer(index) as layer:
                    for track in tracks:
                        _advance(track, layer, states)
                    self._check_finite(tracks, layer, f"layers.{index}")
            with self.loaded_head(every_token=every_token) as head:
                for track in tracks:
                    self._finish(track, plan, head)
                if not all(np.isfinite(logits).all() for track in tracks for logits in track.logits):
                    for module, name in (
                        (self._model.body.get_submodule("norm_f"), "norm_f"),
                        (self._model.get_submodule("lm_head"), "lm_head"),
                    ):
                        self._check_weights(module, name)
                    raise _not_finite("logits of the reference")
        return _snapshots(tracks, [(part, self._parent_input(part)) for part in slices])

    @contextmanager
    def loaded_layer(self, index: int) -> Iterator[Block]:
        """Layer `index` of the parent with its weights, for as long as they are needed."""
        block = self._model.body.layers[index]
        assert isinstance(block, Block)
        with self._loaded(block, f"{self._model.prefix}.layers.{index}"):
            yield block

    @contextmanager
    def loaded_head(self, *, every_token: bool = False) -> Iterator[Callable[[Tensor, Call], Tensor]]:
        """The function from the residual stream [1, T, d] to logits, [1, V] or [1, T, V], with its weights."""
        self._model.every_token = every_token
        norm, prefix = self._model.body.get_submodule("norm_f"), self._model.prefix
        with self._loaded(norm, f"{prefix}.norm_f"), self._loaded(self._model.get_submodule("lm_head"), "lm_head"):
            yield self._model.head

    @contextmanager
    def _loaded(self, module: nn.Module, name: str) -> Iterator[None]:
        weights = {key: torch.from_numpy(self._read(f"{name}.{key}")) for key, _ in module.named_parameters()}
        module.load_state_dict(weights, assign=True)
        yield
        module.to("meta")

    def _check_finite(self, tracks: Sequence[_Track], module: nn.Module, name: str) -> None:
        """Whoever compares with a NaN learns nothing of the file: the fault lies in the checkpoint."""
        streams = [stream for track in tracks for stream in track.streams if stream is not None]
        if all(bool(stream.isfinite().all()) for stream in streams):
            return
        self._check_weights(module, name)
        raise _not_finite(f"{name} of the reference")

    def _check_weights(self, module: nn.Module, name: str) -> None:
        name = name if name == "lm_head" else f"{self._model.prefix}.{name}"
        for key, weight in module.named_parameters():
            if not bool(weight.isfinite().all()):
                raise _not_finite(f"tensor {name}.{key}")

    def _track(self, masks: Masks, plan: Plan, row: int) -> _Track:
        at, calls = 0, []
        for step in plan.steps:
            count = step.length[row]
            calls.append(Call(torch.tensor([at]), torch.tensor([count]), {}, masks))
            at += count
        state = empty_state(self.architecture, 1, plan.context, torch.float32)
        return _Track(row, calls, [None] * len(calls), [state, *({} for _ in calls)])

    def _embed(self, track: _Track, plan: Plan) -> None:
        for number, call in enumerate(track.calls):
            at, count = int(call.position), int(call.length)
            if count:
                ids = torch.from_numpy(plan.ids[track.row : track.row + 1, at : at + count])
                track.streams[number] = self._model.embed(ids, call)

    def _finish(self, track: _Track, plan: Plan, head: Callable[[Tensor, Call], Tensor]) -> None:
        """Logits [V] of each call, or [T, V] with zeros behind the real tokens."""
        tokens = [(step.tokens,) if self._model.every_token else () for step in plan.steps]
        for stream, call, shape in zip(track.streams, track.calls, tokens, strict=True):
            logits = np.zeros((*shape, self.architecture.vocab_size), np.float32)
            if stream is not None:
                found = head(stream, call)[0].numpy()
                logits[: len(found)] = found
            track.logits.append(logits)

    def _parent_input(self, part: StateSlice) -> str:
        """The parent's name of a sub-model's state."""
        ordinal = next(ordinal for index, _, ordinal in self.architecture.layers() if index == part.layer)
        return f"{part.kind}.{ordinal}"


def _not_finite(subject: str) -> InputError:
    todo = "repair the checkpoint: what its weights compute is no number"
    return InputError(subject, expected="finite values", found="a NaN or an infinity", todo=todo)


def _advance(track: _Track, layer: Block, states: Sequence[str]) -> None:
    """One layer over all calls of a row; its states go from call to call, past the calls that leave the row idle."""
    for number, call in enumerate(track.calls):
        before, stream = track.history[number], track.streams[number]
        call.state = call.new_state = {name: before[name] for name in states}
        if stream is not None:
            call.new_state = {}
            track.streams[number] = layer(stream, call)
        track.history[number + 1] |= call.new_state


def _snapshots(tracks: Sequence[_Track], names: Sequence[tuple[StateSlice, str]]) -> list[Snapshot]:
    snapshots = []
    for number in range(len(tracks[0].calls)):
        states = {
            part.input: np.stack([cut_state(track.history[number + 1][name][0].numpy(), part) for track in tracks])
            for part, name in names
        }
        snapshots.append(Snapshot(np.stack([track.logits[number] for track in tracks]), states))
    return snapshots


def cut_state(state: Array, part: StateSlice) -> Array:
    """One sequence's state of the parent (no batch axis), cut to the runs that the sub-model keeps."""
    kept: Array = state[part.index(state.shape)]
    return kept


def spread_state(state: Array, part: StateSlice, shape: Sequence[int]) -> Array:
    """The inverse: a state of the sub-model inside the parent's shape, zeros around it."""
    whole = np.zeros(shape, np.float32)
    whole[part.index(shape)] = state
    return whole
