"""The rows that lose most by quantisation, by their weights alone.

A row is what one output of a matrix is computed with, and, but for blocks, what a scale belongs to. Its loss is
‖quantised - plain‖ / ‖plain‖ over the columns that the sub-model keeps. What a text would make of it is left out on
purpose: the ranking is then the same for every text, and what a row's loss comes to on one shows after its layer.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elastic_export.evaluate.counterpart import Counterpart
from elastic_export.layers.kind import EMBEDDINGS, HEAD
from elastic_export.runs import positions
from elastic_export.verify.way import head_blocks
from elastic_runtime.errors import InputError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
#: Rows that are named.
NAMED = 10
_BAND = 256  # rows whose difference is held at once: a few MB, which stay in the processor's cache


@dataclass(frozen=True)
class LostRow:
    """A row of a matrix of the parent, and its loss."""

    tensor: str
    row: int
    error: float


@dataclass(frozen=True)
class WeightLoss:
    """What quantisation took from the matrices of a sub-model, in the words of an evaluation's JSON file.

    Attributes:
        budget, quantisation: which.
        error: ‖quantised - plain‖ / ‖plain‖ over all matrices together.
        rows: those that lost most, the worst first.
    """

    budget: str
    quantisation: str
    error: float
    rows: tuple[LostRow, ...]


def weight_loss(compared: Counterpart) -> WeightLoss:
    """Compare all matrices, one after the other.

    Memory: two copies of the largest matrix of a layer, or a block of the head's rows.

    Raises:
        InputError: a value is not finite; the form of the budget and the tensor are named.
    """
    worst, apart, whole = list[tuple[float, str, int]](), 0.0, 0.0
    for name, numbers, quantised, plain in _blocks(compared):
        errors, squares = row_errors(quantised, plain)
        if not np.isfinite(errors).all():
            todo = "repair the checkpoint, or export the bundle again"
            spoilt = compared.plain if np.isfinite(quantised).all() else compared.quantised
            raise InputError(
                f"{spoilt.called}, tensor {name}", expected="finite values", found="a NaN or an infinity", todo=todo
            )
        apart, whole = apart + float(errors.sum()), whole + float(squares.sum())
        lost = np.sqrt(np.divide(errors, squares, out=(errors > 0).astype(np.float64), where=squares > 0))
        some = np.argsort(-lost, kind="stable")[:NAMED]
        worst = heapq.nsmallest(NAMED, [*worst, *((-float(lost[i]), name, int(numbers[i])) for i in some if lost[i])])
    error = math.sqrt(apart / whole) if whole else 0.0
    model = compared.quantised
    assert model.quantisation is not None, model.name
    return WeightLoss(
        model.name, model.quantisation.name, error, tuple(LostRow(name, row, -loss) for loss, name, row in worst)
    )


def row_errors(quantised: Array, plain: Array) -> tuple[Floats, Floats]:
    """Σ (quantised - plain)² and Σ plain² of every row of [n, K], in float64."""
    errors, squares = np.empty(len(plain)), np.empty(len(plain))
    for at in range(0, len(plain), _BAND):
        some = slice(at, at + _BAND)
        wide = plain[some].astype(np.float64)
        squares[some] = np.einsum("ij,ij->i", wide, wide)
        wide -= quantised[some]
        errors[some] = np.einsum("ij,ij->i", wide, wide)
    return errors, squares


def _blocks(compared: Counterpart) -> Iterator[tuple[str, npt.NDArray[np.int64], Array, Array]]:
    """(name in the parent, rows' numbers in the parent, quantised, plain) of every matrix, the tables in parts."""
    mine, theirs = compared.quantised, compared.plain
    for (name, shape), (plain_name, _) in zip(mine.shapes(), theirs.shapes(), strict=True):
        if len(shape) != 2:
            continue
        numbers = positions(compared.runs[plain_name][0])
        for first, count in _parts(name, shape, compared):
            if count == shape[0]:
                yield plain_name, numbers, mine.weights.load(name), theirs.weights.load(plain_name)
            else:
                some = mine.weights.rows(name, first, count), theirs.weights.rows(plain_name, first, count)
                yield plain_name, numbers[first : first + count], *some


def _parts(name: str, shape: tuple[int, ...], compared: Counterpart) -> Sequence[tuple[int, int]]:
    tables = (HEAD.name, EMBEDDINGS.name)
    return head_blocks(compared.quantised.architecture) if name.endswith(tables) else [(0, shape[0])]
