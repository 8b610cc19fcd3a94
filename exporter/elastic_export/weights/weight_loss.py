"""What rounding takes from the matrices of a sub-model, by their weights alone.

A row is what one output of a matrix is computed with, and, but for blocks, what a scale belongs to. Its loss is
‖rounded - plain‖ / ‖plain‖ over the columns that the sub-model keeps. What a text would make of it is left out on
purpose: the ranking is then the same for every text, and what a row's loss comes to on one shows after its layer.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from elastic_runtime.errors import advised
from elastic_runtime.format.records import decode, show

Floats = npt.NDArray[np.float64]
#: Rows that are named.
NAMED: Final = 10


@dataclass(frozen=True)
class LostRow:
    """A row of a matrix of the parent, and its loss."""

    tensor: str
    row: int
    error: float


@dataclass(frozen=True)
class WeightTally:
    """What some matrices of a sub-model lost; of several, one after the other, the sum.

    Attributes:
        errors: Σ (rounded - plain)² over what the sub-model keeps.
        squares: Σ plain² over the same.
        rows: those that lost most, the worst first.
    """

    errors: float = 0.0
    squares: float = 0.0
    rows: tuple[LostRow, ...] = ()

    @classmethod
    def of(cls, tensor: str, numbers: npt.NDArray[np.int64], errors: Floats, squares: Floats) -> WeightTally:
        """Of some rows of one matrix: their numbers in the parent and their two sums, [n] each."""
        lost = np.sqrt(np.divide(errors, squares, out=(errors > 0).astype(np.float64), where=squares > 0))
        some = np.argsort(-lost, kind="stable")[:NAMED]
        rows = _worst(LostRow(tensor, int(numbers[i]), float(lost[i])) for i in some if lost[i])
        return cls(float(errors.sum()), float(squares.sum()), rows)

    def __add__(self, other: WeightTally) -> WeightTally:
        """Of both."""
        rows = _worst((*self.rows, *other.rows))
        return WeightTally(self.errors + other.errors, self.squares + other.squares, rows)

    @property
    def error(self) -> float:
        """‖rounded - plain‖ / ‖plain‖ over all of it."""
        return math.sqrt(self.errors / self.squares) if self.squares else 0.0


@dataclass(frozen=True)
class Rounding:
    """What rounding took from a budget's weights, as its report.json has it.

    Attributes:
        quantisation: to what they were rounded.
        dequantised: the formats out of which the parent's matrices were read first, `FP8`; what they lost before is
            not in it. Empty for most parents.
        error: ‖rounded - plain‖ / ‖plain‖ over all matrices together, those that stay as they are with them.
        rows: those that lost most, the worst first.
    """

    quantisation: str
    dequantised: tuple[str, ...]
    error: float
    rows: tuple[LostRow, ...]

    @classmethod
    def of(cls, tally: WeightTally, quantisation: str, dequantised: Iterable[str] = ()) -> Rounding:
        """Errors to five digits, which are the same whatever a processor makes of the last ones."""
        rows = tuple(LostRow(row.tensor, row.row, _digits(row.error)) for row in tally.rows)
        return cls(quantisation, tuple(dequantised), _digits(tally.error), rows)

    @classmethod
    def of_report(cls, report: Mapping[str, Any], where: str) -> Rounding | None:
        """As a report.json has it, which errors call `where`; None where it says nothing.

        Raises:
            InputError: it has something else there.
        """
        found = report.get("rounding")
        with advised("export the bundle again"):
            return None if found is None else decode(cls, found, f"{where}: rounding")

    @property
    def total(self) -> str:
        """`0.67%`, and of what where that is not the parent as it is stored: `0.67% of the dequantised FP8`."""
        plain = f" of the dequantised {' and '.join(map(show, self.dequantised))}" if self.dequantised else ""
        return f"{self.error:.2%}{plain}"

    def text(self) -> str:
        """In a line, with the worst row: `int8 weights are off by 0.67%; most of all <tensor> row 17, by 2.10%`."""
        worst = "".join(f"; most of all {show(row.tensor)} row {row.row}, by {row.error:.2%}" for row in self.rows[:1])
        return f"{show(self.quantisation)} weights are off by {self.total}{worst}"


def _worst(rows: Iterable[LostRow]) -> tuple[LostRow, ...]:
    return tuple(heapq.nsmallest(NAMED, rows, key=lambda row: (-row.error, row.tensor, row.row)))


def _digits(value: float) -> float:
    return float(f"{value:.5g}")
