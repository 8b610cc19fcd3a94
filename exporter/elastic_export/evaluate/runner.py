"""One sub-model in one precision on its way through the layers, all windows of a text side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from elastic_export.checkpoint.conversion import convert, stored_dtype
from elastic_export.dtypes import DTYPES
from elastic_export.evaluate.passage import Passage
from elastic_export.evaluate.sub_model import SubModel, chosen_rows
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.kind import EMBEDDINGS, FINAL_NORM, HEAD
from elastic_export.reference import ElasticModel, budget_masks
from elastic_export.reference.call import Call
from elastic_export.reference.mixers import multiply
from elastic_export.reference.model import Block, rounding_to
from elastic_export.reference.segments import Segments
from elastic_export.reference.state import layer_state
from elastic_export.verify.verify import taken
from elastic_runtime.errors import InputError
from elastic_runtime.format.safetensors import itemsize

Array = npt.NDArray[Any]
#: Tokens that go through a layer at once, or half as many more: what a 12B computes of so many takes half a GiB.
TOGETHER = 1024
#: Tokens of a call at most, and elements of its attention scores [heads, tokens, context]: 128 MiB in float32.
_CALL, _SCORES = 512, 1 << 25


def call_tokens(arch: Architecture, context: int) -> int:
    """Into calls of how many tokens a window is cut; it does not change what is computed."""
    return max(1, min(_CALL, TOGETHER, _SCORES // max(1, arch.attention_heads * context)))


class Runner:
    """See the module. Its linear layers are as wide as the sub-model; the mathematics are the reference's.

    Attributes:
        model: what runs.
        precision: `fp32`: weights as they are stored, everything computed and kept in float32. `bf16`, `fp16`: weights
            as an export of that precision stores them, and what is stored between ops rounded, as engines round it;
            products, norms and states are float32 as in engines.
        passed: bytes of weights used so far, in the model's dtype.
    """

    def __init__(self, model: SubModel, precision: str, passage: Passage) -> None:
        self.model, self.precision, self.passed = model, precision, 0
        arch = model.architecture
        with torch.device("meta"):
            self._parts = ElasticModel(arch, model.prefix)
        self._at = {place: layer for layer, place in zip(arch.layers(), model.layers, strict=True)}
        self._masks = budget_masks(arch, Budget.full(arch, model.name))
        self._rounding = {} if precision == "fp32" else {"rounding": rounding_to(DTYPES[precision].torch)}
        self._context = max(len(window.ids) for window in passage.windows)
        self._lengths = [len(window.ids) for window in passage.windows]
        self._stream = self._embedded(np.concatenate([window.ids for window in passage.windows]))

    @property
    def stream(self) -> Tensor:
        """The residual stream of all windows' tokens, float32 [1, N, d]."""
        return self._stream

    def layer(self, place: int) -> None:
        """Layer `place` of the parent; nothing where the sub-model skips it.

        Raises:
            InputError: a weight, or what is computed, is not finite; the form of the budget, the precision, and the
                tensor or the layer are named.
        """
        layer = self._at.get(place)
        if layer is None:
            return
        block = self._parts.body.layers[layer.index]
        assert isinstance(block, Block)
        self._load(block, {key: self.model.name_of(key, place) for key, _ in block.named_parameters()})
        before: Call | None = None
        for begin, counts in _groups(self._lengths, call_tokens(self.model.architecture, self._context)):
            calls = [self._call(at, count) for at, count in counts]
            for number, call in enumerate(calls):
                if counts[number][0] == 0:
                    call.state = layer_state(self.model.architecture, layer, 1, self._context, torch.float32)
                elif number == 0:
                    assert before is not None
                    call.state = before.new_state
            follows = [n - 1 if n and counts[n][0] else None for n in range(len(counts))]
            tokens = slice(begin, begin + sum(count for _, count in counts))
            self._stream[:, tokens] = block(self._stream[:, tokens], Segments(calls, follows))
            before = calls[-1]
        self._check(self._stream, block, f"layers.{place}", self.model.name_of("", place))
        block.to("meta")

    def begin_head(self, asked: npt.NDArray[np.int64]) -> None:
        """After the last layer: the final norm of those of all tokens that predict one that is scored."""
        norm = self._parts.body.get_submodule("norm_f")
        self._load(norm, {"weight": self.model.name_of(FINAL_NORM.name)})
        self._stream = self._parts.final_norm(self._stream[:, torch.from_numpy(asked)], self._call(0, 1))
        self._check(self._stream, norm, "the final norm", self.model.name_of("norm_f."))

    def head_rows(self, first: int, count: int) -> Tensor:
        """Rows of the head's matrix, float32 [count, d]. Raises InputError: one is not finite."""
        weight = self._taken(HEAD.name, self.model.weights.rows(HEAD.name, first, count))
        self.passed += self._stored(weight)
        if not bool(weight.isfinite().all()):
            raise self._not_finite(f"tensor {HEAD.name}")
        return weight.float()

    def logits(self, weight: Tensor, tokens: slice) -> Tensor:
        """Logits [n, count] of some tokens by rows of the head's matrix, float32."""
        found = self._call(0, 1).round(multiply(self._stream[0, tokens], weight))
        if not bool(found.isfinite().all()):
            raise self._not_finite("the logits")
        return found

    def _call(self, at: int, count: int) -> Call:
        return Call(torch.tensor([at]), torch.tensor([count]), {}, self._masks, **self._rounding)

    def _embedded(self, ids: npt.NDArray[np.int64]) -> Tensor:
        """[1, N, d]."""
        name = self.model.name_of(EMBEDDINGS.name)
        unique, places = np.unique(ids, return_inverse=True)
        rows = self._taken(name, chosen_rows(self.model.weights, name, unique)).float()
        if not bool(rows.isfinite().all()):
            raise self._not_finite(f"tensor {name}")
        return rows[torch.from_numpy(places.reshape(-1))][None]

    def _load(self, module: nn.Module, names: dict[str, str]) -> None:
        weights = {key: self._taken(name, self.model.weights.load(name)) for key, name in names.items()}
        module.load_state_dict(weights, assign=True)
        self.passed += sum(map(self._stored, weights.values()))

    def _stored(self, weight: Tensor) -> int:
        """Its bytes as `cost.weight_bytes` counts them, in whatever dtype it has come."""
        return weight.numel() * itemsize(self.model.dtype)

    def _taken(self, name: str, stored: Array) -> Tensor:
        """A tensor as a model of this precision takes it; `multiply` widens a narrow matrix block by block."""
        if self.precision != "fp32":
            # A matrix of a quantised checkpoint comes in float32, to be rounded once to what an export stores.
            found = next(dtype.short for dtype in DTYPES.values() if dtype.numpy == stored.dtype)
            own = self.model.dtype if self.model.dequantised and stored.ndim == 2 else found
            stored = convert(stored, stored_dtype(own, self.model.dtype, self.precision), name)
            stored = taken(stored, name, self.precision)
        return as_torch(stored)

    def _check(self, values: Tensor, module: nn.Module, what: str, lead: str) -> None:
        if bool(values.isfinite().all()):
            return
        for key, weight in module.named_parameters():
            if not bool(weight.isfinite().all()):
                raise self._not_finite(f"tensor {lead}{key}")
        raise self._not_finite(what)

    def _not_finite(self, what: str) -> InputError:
        """Which form and which precision as well: another of the budget, or of the tensor, may be in order."""
        subject = f"{self.model.called} in {self.precision}, {what}"
        todo = "repair the weights, or leave out that form of the budget, or that precision"
        return InputError(subject, expected="finite values", found="a NaN or an infinity", todo=todo)


def as_torch(array: Array) -> Tensor:
    """The same numbers as a tensor of its own memory; bfloat16, which torch does not take from numpy, by its bits."""
    own = array if array.flags.writeable else np.array(array)  # a view of a file may lie at an odd address, too
    if own.dtype == DTYPES["bf16"].numpy:
        return torch.from_numpy(own.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(own)


def _groups(lengths: Sequence[int], most: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """The calls of all windows of so many tokens, a window's one after the other, in groups that go through a layer
    together: the first token of each group, and of each of its calls (tokens of the window before it, its own).
    """
    # As even as can be: each group widens all weights anew, and a last one of a few tokens would cost as much.
    size = -(-sum(lengths) // max(1, round(sum(lengths) / TOGETHER)))
    group, begin = list[tuple[int, int]](), 0
    for at, count in _calls(lengths, most):
        taken = sum(tokens for _, tokens in group)
        if group and taken + count > size:
            yield begin, group
            group, begin = [], begin + taken
        group.append((at, count))
    yield begin, group


def _calls(lengths: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    for length in lengths:
        for at in range(0, length, most):
            yield at, min(most, length - at)


def asked_tokens(passage: Passage) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which of all tokens of all windows predict one that is scored, and which that is."""
    ends = list(accumulate(len(window.ids) for window in passage.windows))
    asked = [np.arange(end - 1 - w.scored, end - 1) for end, w in zip(ends, passage.windows, strict=True)]
    return np.concatenate(asked), np.concatenate([w.ids[len(w.ids) - w.scored :] for w in passage.windows])
