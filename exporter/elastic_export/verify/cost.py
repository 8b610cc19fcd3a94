"""What verification takes, counted from what `verify_budgets` holds and computes; a plan asks, so nothing heavy here.

A pass that verification gains, loses or does otherwise is a line here as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from elastic_export.layers.architecture import Architecture, Layer
from elastic_export.layers.axis import shape_of
from elastic_export.layers.budget import Budget
from elastic_export.plan.work import Cost, Work
from elastic_export.verify.plan import Plan

_WIDE, _DOUBLE = 4, 8  # bytes of float32 and of float64
#: Rows up to which a product waits for its matrix rather than for the processor.
FEW_ROWS = 16
#: Tokens up to which the reference's scan goes token by token; each then goes over the state this often.
_STEPWISE, _PASSES = 16, 9
#: Elements of a block: of the head's matrix (way.py), and of a matrix that is converted to float64 (mixers.py).
_BLOCK, _CONVERTED = 1 << 24, 1 << 22
#: Rounds of `Work.steps` to cut out a piece, make its twin and a session of it: measured on the demo, whose weights
#: take no time.
_PIECE_STEPS = 1.5e6


@dataclass(frozen=True)
class _Calls:
    """A plan in the counts that cost something."""

    rows: int
    tokens: tuple[int, ...]  # T by call
    fed: tuple[int, ...]  # real tokens by row and call that has any
    context: int

    @classmethod
    def of(cls, plan: Plan) -> _Calls:
        fed = tuple(count for step in plan.steps for count in step.length if count)
        return cls(len(plan.ids), tuple(step.tokens for step in plan.steps), fed, plan.context)

    @property
    def padded(self) -> int:
        """Tokens of all calls, padding included."""
        return self.rows * sum(self.tokens)


def verification_cost(
    parent: Architecture,
    budgets: Sequence[Budget],
    plan: Plan,
    *,
    narrow: bool,
    every_token: bool = False,
    sides: int = 2,
) -> Cost:
    """Memory and work of `verify_budgets`.

    Args:
        parent: whose layers are gone through once.
        budgets: those that are verified on the way.
        plan: the calls of each.
        narrow: whether the precision is a narrow one, whose file has a rounded twin besides.
        every_token: whether all tokens have logits, not each row's last one alone.
        sides: tasks side by side (workers.py); a task is a budget's exact side or its rounded one.
    """
    calls, models = _Calls.of(plan), [budget.architecture(parent) for budget in budgets]
    held = sum(_held(parent, model, calls, narrow=narrow, every_token=every_token) for model in models)
    most, work = 0, Work()
    kept = [dict(zip(b.kept_layers(parent), m.layers(), strict=True)) for b, m in zip(budgets, models, strict=True)]
    for layer in parent.layers():
        here = _Layer(parent, layer, calls)
        reading = here.parameters * (_WIDE + 2)
        pieces = list[_Layer]()
        work += Work(read=2 * here.parameters, moved=reading)
        for model, layers in zip(models, kept, strict=True):
            if layer.index in layers:
                piece = _Layer(model, layers[layer.index], calls)
                pieces.append(piece)
                work += _work(here, piece, calls, narrow=narrow)
        most = max(most, _WIDE * here.parameters + _passing(here, pieces, sides))
    for model in models:
        work += _head(parent, model, calls, narrow=narrow, every_token=every_token)
    block = min(_BLOCK, parent.vocab_size * parent.hidden_size)  # of the parent's head, and of each side's
    blocks = (1 + sides) * block * (_WIDE + 2)
    return Cost(held + max(most, blocks), work)


@dataclass(frozen=True)
class _Layer:
    """A layer of the parent or of a sub-model under a plan's calls."""

    model: Architecture
    layer: Layer
    calls: _Calls

    def _sizes(self, *, matrices: bool) -> Iterator[int]:
        for tensor in self.layer.kind.tensors:
            if tensor.is_matrix or not matrices:
                yield math.prod(shape_of(tensor.axes, self.model, self.layer.ordinal))

    @property
    def parameters(self) -> int:
        return sum(self._sizes(matrices=False)) + self.model.hidden_size

    @property
    def matrices(self) -> int:
        """Elements of its linear layers."""
        return sum(self._sizes(matrices=True))

    @property
    def largest(self) -> int:
        """Elements of its largest tensor: loaded as it is stored before it is widened."""
        return max(self._sizes(matrices=False))

    def state(self, *, scanned: bool = False) -> int:
        """Elements of one sequence's states, or of those alone that a scan goes over."""
        return sum(
            math.prod(
                self.calls.context if axis is None else self.model.size(axis, self.layer.ordinal) for axis in s.axes
            )
            for s in self.layer.kind.states
            if s.wide or not scanned
        )

    @property
    def widest(self) -> int:
        """Channels of its widest inner tensor."""
        return max(self.model.size(mask.axis, self.layer.ordinal) for mask in self.layer.kind.masks)


def _held(parent: Architecture, model: Architecture, calls: _Calls, *, narrow: bool, every_token: bool) -> int:
    """Bytes of a budget from the first layer to the last: the streams of both sides, and the logits at the end."""
    twins, tokens = 1 + narrow, sum(calls.fed)
    streams = tokens * parent.hidden_size + twins * calls.padded * model.hidden_size
    asked, given = (tokens, calls.padded) if every_token else (len(calls.fed), calls.rows * len(calls.tokens))
    logits = (2 * asked + twins * given) * parent.vocab_size  # of the masked parent, the judge and the twins
    return _WIDE * (streams + logits)


def _passing(here: _Layer, pieces: Sequence[_Layer], sides: int) -> int:
    """Bytes while all budgets are at a layer, beside the parent's weights: the weights of the largest pieces, of as
    many as there are sides, and the judged side of one of them; or the judges of as many, which have dropped their
    weights; and the masked parent's states of every budget.
    """
    largest = sorted(pieces, key=lambda piece: piece.parameters, reverse=True)[:sides]
    if not largest:
        return 0  # skipped by all
    weights = _WIDE * sum(piece.parameters for piece in largest)
    states = _WIDE * len(pieces) * len(here.calls.fed) * here.state()
    judged = [_judged(here, piece) for piece in largest]
    return states + max(weights + max(2 * largest[0].largest, judged[0]), sum(judged))


def _judged(here: _Layer, piece: _Layer) -> int:
    """The rounded twin's records of every call (stream, branch, sum, and the states between calls), the judge's states
    and activations in float64, before and after, and a block of a matrix converted to it.
    """
    calls, fed, tokens = here.calls, len(here.calls.fed), sum(here.calls.fed)
    records = 3 * calls.padded * piece.model.hidden_size + (len(calls.tokens) + 1) * calls.rows * piece.state()
    judge = 2 * fed * here.state() + 3 * tokens * here.widest + min(here.matrices, _CONVERTED)
    return _WIDE * (records + fed * piece.state()) + _DOUBLE * judge


def _work(here: _Layer, piece: _Layer, calls: _Calls, *, narrow: bool) -> Work:
    """One budget at one layer."""
    tokens, twins = sum(calls.fed), 1 + narrow
    many, few = _rows(calls, together=not piece.state())
    twin = Work(
        products=2.0 * many * piece.matrices,
        few_rows=_WIDE * few * piece.matrices,
        # States go into a call and out of it, and are compared.
        moved=_WIDE * 8 * calls.rows * len(calls.tokens) * piece.state(),
        steps=_PIECE_STEPS,
    )
    parent = Work(products=2.0 * tokens * here.matrices, moved=_scan(here, calls, _WIDE))
    converted = (_WIDE + _DOUBLE) * here.matrices
    judge = Work(double_products=2.0 * tokens * here.matrices, moved=converted + _scan(here, calls, _DOUBLE))
    return twin * twins + parent + judge + Work(moved=piece.parameters * (2 + 2 + _WIDE))


def _rows(calls: _Calls, *, together: bool, last: bool = False) -> tuple[int, int]:
    """Rows in all runs of many, and the number of runs of few.

    Calls of as many tokens run `together` where nothing is carried from one to the next (shipped.py). `last`: one row a
    sequence, whatever the tokens are.
    """
    each = [(tokens, calls.tokens.count(tokens)) for tokens in set(calls.tokens)]
    runs = each if together else [(tokens, 1) for tokens in calls.tokens]
    rows = [calls.rows * count * (1 if last else tokens) for tokens, count in runs]
    return sum(n for n in rows if n > FEW_ROWS), sum(n <= FEW_ROWS for n in rows)


def _scan(here: _Layer, calls: _Calls, itemsize: int) -> int:
    """Bytes that the reference's scan moves: a token at a time over the states, or a chunk at a time."""
    steps = sum(count if count <= _STEPWISE else -(-count // _STEPWISE) for count in calls.fed)
    return itemsize * _PASSES * steps * here.state(scanned=True)


def _head(parent: Architecture, model: Architecture, calls: _Calls, *, narrow: bool, every_token: bool) -> Work:
    """Embedding and head of one budget: the head's rows in blocks, each of them a piece of its own."""
    twins, matrix = 1 + narrow, parent.vocab_size * parent.hidden_size
    own, blocks = parent.vocab_size * model.hidden_size, -(-matrix // _BLOCK)
    many, few = _rows(calls, together=True, last=not every_token)
    asked = sum(calls.fed) if every_token else len(calls.fed)
    side = Work(products=2.0 * asked * matrix)
    twin = Work(products=2.0 * many * own, few_rows=_WIDE * few * own, steps=_PIECE_STEPS * (1 + blocks))
    return side * 2 + twin * twins + Work(read=2 * matrix, moved=(2 + _WIDE) * (matrix + own))
