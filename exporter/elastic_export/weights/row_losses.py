"""What sub-models lose while the rows of their parent are rounded, of every row over the columns that each keeps.

Sub-models keep parts of the same rows, mostly one inside the other. So sums are made once for every class of columns,
those that the same sub-models keep, and what one of them loses is a sum of classes. Rows have places of their own, and
`np.add.reduce` adds floats in an order that is the same on every processor: whoever rounds, in whatever order and in
however many threads, gets the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from elastic_export.runs import Runs, TensorRuns, positions
from elastic_export.weights.weight_loss import WeightTally

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
#: A sum of squares that is this often the smallest normal number has lost nothing by squares that are below that.
_EXACT = 2.0**27
_BLOCK = 64  # columns that are summed in the values' own dtype


class ColumnClasses:
    """The classes of a matrix's columns.

    Args:
        columns: K of the parent's matrix.
        kept: the columns that each sub-model keeps of it; one at least.

    Attributes:
        members: [sub-models, classes], whether a sub-model keeps the class.
    """

    def __init__(self, columns: int, kept: Sequence[Runs]) -> None:
        keeps = np.zeros((len(kept), columns), np.bool_)
        for mine, runs in zip(keeps, kept, strict=True):
            mine[positions(runs)] = True
        changes = (keeps[:, 1:] != keeps[:, :-1]).any(axis=0)
        # Blocks begin at the same columns whatever is kept, so that where a sub-model is cut moves no more than one
        # float32 sum of another's: counted alone or beside others, it loses the same to some 1e-8, where five digits
        # are told, and exactly the same where cuts are at multiples of a block.
        changes[_BLOCK - 1 :: _BLOCK] = True
        self._starts = np.concatenate([[0], np.flatnonzero(changes) + 1])  # of runs of equal columns
        self.members, of_runs = np.unique(keeps[:, self._starts], axis=1, return_inverse=True)
        of_runs = of_runs.reshape(-1)  # a row in NumPy 2.0 alone
        self._order = np.argsort(of_runs, kind="stable")  # the runs of a class beside each other
        self._first = np.searchsorted(of_runs[self._order], np.arange(self.members.shape[1]))

    def sums(self, values: Array) -> Floats:
        """[n, K] -> [n, classes]: of a run inside a block in the values' own dtype, of runs in float64."""
        runs = np.add.reduceat(values, self._starts, axis=1)
        return np.add.reduceat(runs[:, self._order], self._first, axis=1, dtype=np.float64)


class RowLosses:
    """Squared errors and squares of the rows of one tensor.

    Args:
        name: of the tensor, [N, K] in the parent.
        shape: that.
        kept: what each sub-model keeps of it; one at least.
    """

    def __init__(self, name: str, shape: tuple[int, ...], kept: Mapping[str, TensorRuns]) -> None:
        self._name, self._kept = name, kept
        self._classes = ColumnClasses(shape[1], [columns for _, columns in kept.values()])
        classes = self._classes.members.shape[1]
        self._errors, self._squares = np.empty((shape[0], classes)), np.empty((shape[0], classes))

    def put(self, first: int, plain: Array, rounded: Array, units: Array) -> None:
        """Count a band: its rows from `first` on, [n, K] in units of their own, [n]; `plain` is overwritten.

        Values whose squares such a number cannot hold are nothing beside their unit: they were rounded to zeros, and
        all of them is lost.
        """
        at = slice(first, first + len(plain))
        squares = self._classes.sums(plain * plain)
        few = squares < np.finfo(plain.dtype).tiny * _EXACT
        lost = np.flatnonzero(few.any(axis=1))
        exact = self._classes.sums(np.square(plain[lost].astype(np.float64))) if len(lost) else None
        plain -= rounded
        plain *= plain
        errors = self._classes.sums(plain)
        if exact is not None:
            errors[lost], squares[lost] = (np.where(few[lost], exact, sums[lost]) for sums in (errors, squares))
        area = np.square(units.astype(np.float64))[:, None]
        self._errors[at], self._squares[at] = errors * area, squares * area

    def tallies(self) -> Iterator[tuple[str, WeightTally]]:
        """Of each sub-model, once all rows are counted."""
        for (budget, (rows, _)), classes in zip(self._kept.items(), self._classes.members, strict=True):
            numbers = positions(rows)
            errors, squares = (sums[numbers][:, classes].sum(axis=1) for sums in (self._errors, self._squares))
            yield budget, WeightTally.of(self._name, numbers, errors, squares)


class Losses:
    """What sub-models lost of the tensors that were rounded so far.

    Args:
        kept: by sub-model what it keeps of every tensor (`layers.kept.tensor_runs`).

    Attributes:
        tallies: of each.
    """

    def __init__(self, kept: Mapping[str, Mapping[str, TensorRuns]]) -> None:
        self._kept = kept
        self.tallies = {budget: WeightTally() for budget in kept}

    @contextmanager
    def rows(self, name: str, shape: tuple[int, ...]) -> Iterator[RowLosses | None]:
        """To count a tensor's rows in, all of them before the block ends; None where no sub-model keeps any."""
        kept = {budget: runs[name] for budget, runs in self._kept.items() if name in runs}
        rows = RowLosses(name, shape, kept) if kept else None
        yield rows
        if rows is not None:
            for budget, tally in rows.tallies():
                self.tallies[budget] += tally
