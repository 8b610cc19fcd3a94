"""Every layer by itself, from the same inputs, with the same roundings on both sides: faults are named by layer.

End to end two correct narrow runs drift apart: a sum that differs in its last bit rounds the other way here and there,
and ten layers on that is a per cent, as much as a real fault. So the rounded twin is recorded with its residual stream,
and the oracle computes each layer from the twin's own stream and states, in float64 (and in float32 where a layer
is outside the table's bounds, to see how far two right implementations are apart on it). What is left are single
flipped roundings (1e-4); a norm, a time step or a state in the narrow dtype stands out by ten times that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from elastic_export.dtypes import DTYPES
from elastic_export.emit import EmittedModel
from elastic_export.graph.facts import StateSlice, tensor_slices
from elastic_export.reference import Masks
from elastic_export.reference.call import Call
from elastic_export.reference.mixers import multiply
from elastic_export.reference.model import Block, rounding_to
from elastic_export.reference.segments import Segments
from elastic_export.runs import positions
from elastic_export.verify.compare import Comparison, Tally
from elastic_export.verify.masked import Fed, feeds, last_tokens
from elastic_export.verify.oracle import Array, Oracle, cut_state, spread_state
from elastic_export.verify.plan import Plan
from elastic_export.verify.shipped import Passed
from elastic_export.verify.tolerance import TOLERANCES

#: A layer's branch [N, d'] of all tokens, and of each feed the states after it by the parent's names.
_Layer = tuple[Array, list[dict[str, Array]]]


class Judge:
    """Recomputes the layers of a twin with the masked parent.

    Attributes:
        logits: [n, V] after the head, of each feed's last token or of all tokens.
    """

    def __init__(self, oracle: Oracle, masks: Masks, emitted: EmittedModel, plan: Plan, *, every: bool) -> None:
        self._oracle, self._masks, self._slices = oracle, masks, emitted.state_slices
        self._arch, self._plan, self._every = oracle.architecture, plan, every
        self._round = rounding_to(DTYPES[emitted.precision].torch)
        self._tolerance = TOLERANCES["rounded"][emitted.precision]
        parts = tensor_slices(emitted.weight_sources.values())
        embeddings = next(part for part in parts if part.tensor.endswith("embeddings.weight"))
        self._hidden, self.fed = positions(embeddings.runs[1]), sorted(feeds(plan), key=lambda fed: (fed.call, fed.row))
        flip = 2 * torch.finfo(DTYPES[emitted.precision].torch).eps
        self.tally, self._noise = Tally(pooled=True, flip=flip), Tally(pooled=True, flip=flip)

    def comparison(self) -> Comparison:
        """The twin against the oracle in float64; beside it, where that was measured, the oracle's own float32."""
        noise = {found.tensor: found for found in self._noise.comparison().differences}
        found = self.tally.comparison()
        differences = [
            replace(d, noise=noise[d.tensor].error, noise_share=noise[d.tensor].share) if d.tensor in noise else d
            for d in found.differences
        ]
        return Comparison(tuple(differences), found.top1)

    def layer(self, passed: Sequence[Passed], block: Block) -> None:
        """One layer of the sub-model, computed by the parent's block, all rows and calls at once."""
        states = self._oracle.states_of(block.index, self._plan.context)
        kinds = {part.kind: part for part in self._slices if part.layer == block.index}
        parts = {name: kinds[kind] for name in states if (kind := name.split(".")[0]) in kinds}
        if {part.input for part in parts.values()} != set(passed[0].before):
            self.tally.add_missing(f"branch.{block.index}")  # a layer of another kind
            return
        for fed in self.fed:
            record, tokens = passed[fed.call], (fed.row, slice(fed.count))
            summed = self._round(torch.from_numpy(record.stream[tokens] + record.branch[tokens])).numpy()
            self.tally.add(f"residual.{block.index}", fed.call, record.total[tokens], summed)
        branch, exact = f"branch.{block.index}", self._run(passed, block, parts, torch.float64)
        self._hold(self.tally, branch, parts, self._taken(passed, parts), exact)
        found = self.tally.differences([branch, *(part.input for part in parts.values())])
        if not all(self._tolerance.holds(difference) for difference in found):
            self._hold(self._noise, branch, parts, self._run(passed, block, parts, torch.float32), exact)

    def _hold(self, tally: Tally, branch: str, parts: Mapping[str, StateSlice], ours: _Layer, theirs: _Layer) -> None:
        """One implementation of a layer against another."""
        start = 0
        for number, fed in enumerate(self.fed):
            tokens, end = slice(start, start + fed.count), fed.at + fed.count
            tally.add(branch, fed.call, ours[0][tokens], theirs[0][tokens])
            for name, part in parts.items():
                tally.add_state(part.input, fed.call, ours[1][number][name], theirs[1][number][name], end)
            start += fed.count

    def _taken(self, passed: Sequence[Passed], parts: Mapping[str, StateSlice]) -> _Layer:
        """What the twin computed."""
        branch = np.concatenate([passed[fed.call].branch[fed.row, : fed.count] for fed in self.fed])
        states = [
            {name: passed[fed.call].after[part.input][fed.row] for name, part in parts.items()} for fed in self.fed
        ]
        return branch, states

    def _run(
        self, passed: Sequence[Passed], block: Block, parts: Mapping[str, StateSlice], dtype: torch.dtype
    ) -> _Layer:
        """What the parent's block computes from the same streams and states in `dtype`."""
        shapes = {
            name: state.shape[1:] for name, state in self._oracle.states_of(block.index, self._plan.context).items()
        }
        calls = [self._call(fed) for fed in self.fed]
        for fed, call in zip(self.fed, calls, strict=True):
            for name, part in parts.items():
                before = spread_state(passed[fed.call].before[part.input][fed.row], part, shapes[name])
                call.state[name] = torch.from_numpy(before[None]).to(dtype)
        streams = [record.stream for record in passed]
        batch = Segments(calls, [None] * len(calls))
        branch = block.branch(self._widened(streams).to(dtype), batch)[0].float().numpy()[:, self._hidden]
        states = [
            {name: cut_state(call.new_state[name][0].float().numpy(), part) for name, part in parts.items()}
            for call in calls
        ]
        return branch, states

    def begin_head(self, streams: Sequence[Array]) -> None:
        """The final norm of the twin's last stream, with its weight at hand; then `head` may be asked."""
        picked = self._widened(streams)[:, last_tokens(self.fed, every=self._every)]
        self._normed = self._oracle.normed(picked, self._call(self.fed[0]))
        self.logits = np.zeros((picked.shape[1], self._arch.vocab_size), np.float32)

    def head(self, first: int, weight: Tensor) -> None:
        """The logits of some rows of the head's matrix, from `first` on."""
        product, unit = multiply(self._normed, weight), self._oracle.head_units(weight)
        # Logits are float32: what scales them is not rounded.
        found = self._round(product) if unit is None else self._round(product / unit) * unit
        self.logits[:, first : first + len(weight)] = found[0].numpy()

    def _call(self, fed: Fed) -> Call:
        return Call(torch.tensor([fed.at]), torch.tensor([fed.count]), {}, self._masks, self._round)

    def _widened(self, streams: Sequence[Array]) -> Tensor:
        """The sub-model's stream of all real tokens among the parent's channels, [1, N, d]."""
        real = np.concatenate([streams[fed.call][fed.row, : fed.count] for fed in self.fed])
        whole = np.zeros((1, len(real), self._arch.hidden_size), np.float32)
        whole[0][:, self._hidden] = real
        return torch.from_numpy(whole)
