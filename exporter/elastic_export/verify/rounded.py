"""The check of narrow models: every layer by itself, from the same inputs, with the same roundings on both sides.

End to end two correct narrow runs drift apart: a sum that differs in its last bit rounds the other way here and there,
and ten layers on that is a per cent, as much as a real fault. So the rounded twin is recorded with its residual stream,
and the oracle computes each layer from the twin's own stream and states, in float64 (and in float32, to see how far two
right implementations are apart on this model). What is left are single flipped roundings
(1e-4); a norm, a time step or a state in the narrow dtype stands out by ten times that.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from elastic_export.emit import EmittedModel
from elastic_export.graph.facts import StateSlice, tensor_slices
from elastic_export.layers.budget import Budget
from elastic_export.reference import Masks, empty_state
from elastic_export.reference.call import Call
from elastic_export.reference.model import Block, rounding_to
from elastic_export.runs import positions
from elastic_export.verify.compare import Comparison, Tally
from elastic_export.verify.onnx_model import OnnxModel
from elastic_export.verify.oracle import Oracle, Snapshot, cut_state, spread_state
from elastic_export.verify.plan import POISON, Plan, walk
from elastic_runtime.errors import InternalError
from elastic_runtime.ort.twin import residual_sums

Array = npt.NDArray[np.float32]
Weights = Iterable[tuple[str, npt.NDArray[Any]]]


@dataclass(frozen=True)
class _Record:
    """One call of the twin: states before, all outputs, and the stream, the branch and the sum of each layer."""

    position: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    before: dict[str, Array]
    outputs: dict[str, Array]
    layers: list[tuple[Array, Array, Array]]

    def rows(self) -> list[tuple[int, int]]:
        """(row, real tokens) of the rows that were fed."""
        return [(row, int(count)) for row, count in enumerate(self.length) if count]


def check_rounded(
    oracle: Oracle,
    masks: Masks,
    budget: Budget,
    emitted: EmittedModel,
    model: onnx.ModelProto,
    weights: Weights,
    plan: Plan,
    storage: torch.dtype,
) -> Comparison:
    """Compare branch, sum and states of every layer, and the logits, each from the twin's own inputs."""
    layers = len(budget.kept_layers(oracle.architecture))
    records = _record(model, weights, plan, oracle.architecture.vocab_size, layers)
    judge = _Judge(oracle, masks, emitted, storage)
    with torch.inference_mode():
        for number, index in enumerate(budget.kept_layers(oracle.architecture)):
            with oracle.loaded_layer(index) as block:
                judge.layer(records, number, block)
        judge.logits(records)
    return judge.comparison()


def _record(model: onnx.ModelProto, weights: Weights, plan: Plan, vocab: int, layers: int) -> list[_Record]:
    sums = [(node.input[0], node.input[1], node.output[0]) for node in residual_sums(model)]
    if len(sums) != layers:
        raise InternalError(
            "model.onnx", expected=f"{layers} sums of the residual stream, one a layer", found=f"{len(sums)}"
        )
    taps = sorted({name for names in sums for name in names})
    twin, records = OnnxModel(model, weights, rounded=True, taps=taps), list[_Record]()
    state = twin.empty_state(len(plan.ids), plan.context, cache_fill=POISON)
    for ids, position, length in walk(plan, vocab):
        outputs = twin.run(ids, position, length, state)
        tapped = [(outputs[stream], outputs[branch], outputs[total]) for stream, branch, total in sums]
        records.append(_Record(position, length, state, outputs, tapped))
        state = twin.new_state(outputs)
    return records


class _Judge:
    """Recomputes pieces of the twin with the masked parent."""

    def __init__(self, oracle: Oracle, masks: Masks, emitted: EmittedModel, storage: torch.dtype) -> None:
        self._oracle, self._masks, self._slices = oracle, masks, emitted.state_slices
        self._round, self._arch = rounding_to(storage), oracle.architecture
        parts = tensor_slices(emitted.weight_sources.values())
        embeddings = next(part for part in parts if part.tensor.endswith("embeddings.weight"))
        self._hidden = positions(embeddings.runs[1])
        self._shapes = {n: t.shape[1:] for n, t in empty_state(self._arch, 1, 1, torch.float32, "meta").items()}
        self.tally, self.noise = Tally(pooled=True), Tally(pooled=True)

    def comparison(self) -> Comparison:
        """The twin against the oracle in float64, beside the oracle's own float32 against its float64."""
        noise = {found.tensor: found for found in self.noise.comparison().differences}
        found = self.tally.comparison()
        differences = [
            replace(d, noise=noise[d.tensor].error, noise_share=noise[d.tensor].share) if d.tensor in noise else d
            for d in found.differences
        ]
        return Comparison(tuple(differences), found.top1)

    def layer(self, records: Sequence[_Record], number: int, block: Block) -> None:
        """Layer `number` of the sub-model, computed by the parent's block."""
        _, _, ordinal = list(self._arch.layers())[block.index]
        parts = {f"{part.kind}.{ordinal}": part for part in self._slices if part.layer == block.index}
        exact = copy.deepcopy(block).to(torch.float64)
        for call, record in enumerate(records):
            for row, count in record.rows():
                stream, branch, total = (value[row, :count] for value in record.layers[number])
                summed = self._round(torch.from_numpy(stream + branch)).numpy()
                self.tally.add(f"residual.{block.index}", call, total, summed)
                ours = {part.input: record.outputs[part.output][row] for part in parts.values()}
                wide = self._run(exact, parts, record, row, stream)
                narrow = self._run(block, parts, record, row, stream)
                end = int(record.position[row]) + count
                for tally, (found, states) in ((self.tally, (branch, ours)), (self.noise, narrow)):
                    tally.add(f"branch.{block.index}", call, found, wide[0])
                    for name, state in states.items():
                        tally.add_state(name, call, state, wide[1][name], end)

    def _run(
        self, block: Block, parts: Mapping[str, StateSlice], record: _Record, row: int, stream: Array
    ) -> tuple[Array, dict[str, Array]]:
        """Branch [T, d'] and new states of one row, by a block of either width."""
        inner, dtype = self._call(record, row), next(block.parameters()).dtype
        for name, part in parts.items():
            before = record.before[part.input][row]
            shape = self._shapes[name] if "cache" not in name else before.shape
            inner.state[name] = torch.from_numpy(spread_state(before, part, shape)[None]).to(dtype)
        branch = block.branch(self._widen(stream).to(dtype), inner)[0].float().numpy()[:, self._hidden]
        states = {part.input: cut_state(inner.new_state[name][0].float().numpy(), part) for name, part in parts.items()}
        return branch, states

    def logits(self, records: Sequence[_Record]) -> None:
        """The head, from the twin's last stream."""
        with self._oracle.loaded_head(every_token=records[0].outputs["logits"].ndim == 3) as head:
            for call, record in enumerate(records):
                ours = Snapshot(record.outputs["logits"], {})
                for row, count in record.rows():
                    stream = record.layers[-1][2][row, :count]
                    expected = head(self._widen(stream), self._call(record, row)).numpy()
                    rows = (ours.real_logits(row, count), Snapshot(expected, {}).real_logits(0, count))
                    for mine, theirs in zip(*rows, strict=True):
                        self.tally.add_logits(call, mine, theirs)

    def _call(self, record: _Record, row: int) -> Call:
        position, length = torch.tensor([record.position[row]]), torch.tensor([record.length[row]])
        return Call(position, length, {}, self._masks, self._round)

    def _widen(self, stream: Array) -> torch.Tensor:
        """The sub-model's residual stream [T, d'] among the parent's channels, [1, T, d]."""
        whole = np.zeros((1, len(stream), self._arch.hidden_size), np.float32)
        whole[0][:, self._hidden] = stream
        return torch.from_numpy(whole)
