"""The rows that lose most by quantisation (`weights.weight_loss`), of sub-models that lie quantised and plain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elastic_export.evaluate.counterpart import Counterpart
from elastic_export.layers.kind import EMBEDDINGS, HEAD
from elastic_export.runs import positions
from elastic_export.verify.way import head_blocks
from elastic_export.weights.weight_loss import Floats, LostRow, WeightTally
from elastic_runtime.errors import InputError

Array = npt.NDArray[Any]
_BAND = 256  # rows whose difference is held at once: a few MB, which stay in the processor's cache


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
    tally = WeightTally()
    for name, numbers, quantised, plain in _blocks(compared):
        errors, squares = row_errors(quantised, plain)
        if not np.isfinite(errors).all():
            todo = "repair the checkpoint, or export the bundle again"
            spoilt = compared.plain if np.isfinite(quantised).all() else compared.quantised
            raise InputError(
                f"{spoilt.called}, tensor {name}", expected="finite values", found="a NaN or an infinity", todo=todo
            )
        tally += WeightTally.of(name, numbers, errors, squares)
    model = compared.quantised
    assert model.quantisation is not None, model.name
    return WeightLoss(model.name, model.quantisation.name, tally.error, tally.rows)


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
