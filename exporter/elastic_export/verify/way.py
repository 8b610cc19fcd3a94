"""One budget's way through the layers: the masked parent and the twins of its file, side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
import onnx
from torch import Tensor

from elastic_export.emit import EmittedModel
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.reference import budget_masks
from elastic_export.reference.model import Block
from elastic_export.verify.compare import Comparison, Tally
from elastic_export.verify.masked import MaskedParent
from elastic_export.verify.oracle import Array, Oracle
from elastic_export.verify.plan import Plan
from elastic_export.verify.rounded import Judge
from elastic_export.verify.shipped import Passed, ShippedFile, real_logits
from elastic_export.verify.workers import Shared, Task
from elastic_runtime.errors import BuildError
from elastic_runtime.format.golden import Golden
from elastic_runtime.format.sketch import Sketch, sketch, written_rows
from elastic_runtime.ort.piece_weights import (
    HeadMatrix,
    check_source,
    declared_shapes,
    embedding_weights,
    head_matrix,
    head_of,
    head_weights,
    piece_weights,
    tables,
)
from elastic_runtime.ort.pieces import Piece, cut
from elastic_runtime.ort.weight_source import WeightSource

_Rows = tuple[Piece, dict[str, Array]]  # a piece of the head for some rows, and their weights
_AGAIN = "export the bundle again"
_BLOCK = 1 << 24  # elements of the head's matrix at a time: 64 MiB in float32


def head_blocks(arch: Architecture) -> list[tuple[int, int]]:
    """(first row, rows) of the blocks in which the head's matrix is read."""
    rows = max(1, _BLOCK // arch.hidden_size)
    return [(first, min(rows, arch.vocab_size - first)) for first in range(0, arch.vocab_size, rows)]


class Way:
    """A budget under verification; the caller asks of it what the next weights of the parent are for.

    The float32 twin is fed its own stream from end to end. The rounded one is too (of a float32 model it is the same),
    and the `judge` holds each of its layers alone against the parent.

    Raises (when made): see `cut`; InputError, BuildError: `weights` are not those of the file, or not of the parent's
    tokens.
    """

    def __init__(
        self,
        oracle: Oracle,
        budget: Budget,
        emitted: EmittedModel,
        weights: WeightSource,
        plan: Plan,
        threads: int = 0,
    ) -> None:
        arch, narrow = oracle.architecture, emitted.precision != "fp32"
        every, masks = len(emitted.logits.shape) == 3, budget_masks(arch, budget)
        self._oracle, self._plan, self._source, self._slices = oracle, plan, weights, emitted.state_slices
        self._every = every
        self.file = onnx.load(emitted.path, load_external_data=False)
        kept = budget.kept_layers(arch)
        first, *pieces = cut(self.file, kept)
        check_source(self.file, weights)
        self._pieces, self._head = dict(zip(kept, pieces, strict=False)), (pieces or [first])[-1]
        self._matrix = head_matrix(self._head)
        _check_vocabulary(self.file, arch.vocab_size, tables(first), self._matrix)
        self._parent = MaskedParent(oracle, masks, emitted.state_slices, plan, every_token=every)
        vocab, roundings = arch.vocab_size, (False, True)[: 1 + narrow]
        self._twins = [ShippedFile(plan, vocab, rounded=rounded, threads=threads) for rounded in roundings]
        self.judge = Judge(oracle, masks, emitted, plan, every=every)
        self._tally, self._sketches = Tally(), dict[str, Sketch]()
        self._ends = np.cumsum([step.length for step in plan.steps], axis=0)
        if pieces:
            held = embedding_weights(first, weights, self._twins[0].ids())
            for twin in self._twins:
                twin.embed(first, held)

    def layer(self, block: Block) -> list[Task]:
        """What the parent's next layer, kept or not, is for; the tasks may run side by side."""
        if block.index not in self._pieces:
            return [lambda: self._parent.layer(block)]
        piece = self._pieces[block.index]
        weights = Shared(len(self._twins), lambda: piece_weights(piece, self._source))

        def passed(twin: ShippedFile) -> Iterator[Passed]:
            return twin.layer(piece, weights.take())

        if len(self._twins) == 1:
            return [lambda: self._both(block, passed(self._twins[0]))]
        return [
            lambda: self._exact_layer(block, passed(self._twins[0])),
            lambda: self.judge.layer(list(passed(self._twins[1])), block),
        ]

    def _both(self, block: Block, passed: Iterable[Passed]) -> None:
        kept = list[Passed]()

        def noted() -> Iterator[Passed]:
            for record in passed:
                kept.append(record)
                yield record

        self._exact_layer(block, noted())
        self.judge.layer(kept, block)

    def _exact_layer(self, block: Block, passed: Iterable[Passed]) -> None:
        """Parent and float32 twin."""
        self._parent.layer(block)
        for call, record in enumerate(passed):
            expected = self._parent.states(call)
            self._tally.add_states(call, record.after, expected, self._ends[call].tolist())
        for name, states in expected.items():
            self._sketches[name] = sketch(written_rows(states, self._ends[-1]) if "cache" in name else states)

    def begin_head(self) -> None:
        """After the last layer, with the final norm's weight loaded."""
        self._parent.begin_head()
        self.judge.begin_head(self._twins[-1].streams)
        if self._matrix is None:
            weights = piece_weights(self._head, self._source)
            for twin in self._twins:
                twin.head(self._head, weights)

    def head(self, first: int, weight: Tensor) -> list[Task]:
        """What rows of the parent's head, from `first` on, are for; the tasks may run side by side."""
        rows = Shared(len(self._twins), lambda: self._head_rows(first, len(weight)))
        return [lambda: self._exact_head(first, weight, rows), lambda: self._rounded_head(first, weight, rows)]

    def _exact_head(self, first: int, weight: Tensor, rows: Shared[_Rows]) -> None:
        self._parent.head(first, weight)
        if self._matrix is not None:
            self._twins[0].head(*rows.take())

    def _rounded_head(self, first: int, weight: Tensor, rows: Shared[_Rows]) -> None:
        self.judge.head(first, weight)
        for twin in self._twins[1:] if self._matrix is not None else ():
            twin.head(*rows.take())

    def finish(self, blocks: Sequence[tuple[int, int]]) -> None:
        """After the last rows: compare the logits."""
        self._oracle.check_head(self._parent.logits, blocks)
        self._compare_logits(self._tally, self._twins[0], self._parent)
        self._compare_logits(self.judge.tally, self._twins[-1], self.judge)

    def float32(self) -> Comparison:
        """The float32 twin from end to end against the parent."""
        names = [part.input for part in self._slices]
        for name in names:
            if name not in self._sketches:
                self._tally.add_missing(name)
        return self._tally.comparison(["logits", *names])

    def golden(self) -> Golden:
        """What the parent said, for later replays."""
        lengths = np.array([step.length for step in self._plan.steps], np.int64)
        logits = np.zeros((*lengths.shape, self._parent.logits.shape[1]), np.float32)
        for place, rows in self._logits_of(self._parent).items():
            logits[place] = rows[-1]
        return Golden(
            seed=self._plan.seed,
            ids=self._plan.ids,
            tokens=np.array([step.tokens for step in self._plan.steps], np.int64),
            position=self._ends - lengths,
            length=lengths,
            logits=logits,
            states={part.input: self._sketches[part.input] for part in self._slices if part.input in self._sketches},
        )

    def _head_rows(self, first: int, count: int) -> _Rows:
        assert self._matrix is not None
        weights = head_weights(self._head, self._source, self._matrix, first, count)
        return head_of(self._head, self._matrix, count), weights

    def _compare_logits(self, tally: Tally, twin: ShippedFile, side: MaskedParent | Judge) -> None:
        for (call, row), expected in sorted(self._logits_of(side).items(), key=lambda item: item[0]):
            found = real_logits(twin.logits[call], row, self._plan.steps[call].length[row])
            for mine, theirs in zip(found, expected, strict=True):
                tally.add_logits(call, mine, theirs)

    def _logits_of(self, side: MaskedParent | Judge) -> dict[tuple[int, int], Array]:
        """By call and row, [n, V]: the last token's logits, or all tokens'."""
        counts = np.array([fed.count if self._every else 1 for fed in side.fed])
        parts = np.split(side.logits, counts.cumsum()[:-1])
        return {(fed.call, fed.row): part for fed, part in zip(side.fed, parts, strict=True)}


def _check_vocabulary(file: onnx.ModelProto, vocab: int, picked: Collection[str], matrix: HeadMatrix | None) -> None:
    """Whether logits, head and table are of the parent's tokens, all of them: in the pieces they are as many as are
    given.
    """
    axes = {**({} if matrix is None else matrix.axes), **dict.fromkeys(picked, 0)}
    rows = {name: shape[axes[name]] for name, shape in declared_shapes(file).items() if name in axes}
    [logits] = [value for value in file.graph.output if value.name == "logits"]
    for name, found in {**rows, "logits": logits.type.tensor_type.shape.dim[-1].dim_value}.items():
        if found != vocab:
            raise BuildError(name, expected=f"{vocab} tokens, as in the parent", found=str(found), todo=_AGAIN)
