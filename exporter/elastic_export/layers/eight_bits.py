"""Which matrices of a parent are kept in eight bits, and how the file of such a parent lays them.

Linear layers, the head's matrix and the embedding; convolutions, norms and vectors stay. A matrix [N, K] of a linear
layer is stored transposed, [K, N], and matrices that read the same activations are joined along their rows: in other
layouts TensorRT-RTX 1.7 copies a weight at each call, or joins what it has dequantised. With an odd N or K it copies
too, so a matrix that is odd, in the parent or in a budget of its, stays as it is: all budgets read one file. Not so the
embedding: its rows are picked, not multiplied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from elastic_export.layers.architecture import Architecture, Stored
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import tensor_runs
from elastic_export.layers.kind import EMBEDDINGS
from elastic_export.runs import runs_shape

Shape = tuple[int, ...]


@dataclass(frozen=True)
class EightBitMatrix:
    """A matrix that is stored in eight bits: one tensor of the parent, or several joined along their rows.

    Attributes:
        name: what it is called; `values` and `scales` are the names of what is stored.
        tensors: names and shapes [N, K] of the parent's, in order.
        transposed: whether the values lie as [K, N]; the embedding's do not, for tokens pick its rows.
    """

    name: str
    tensors: tuple[tuple[str, Shape], ...]
    transposed: bool

    @property
    def values(self) -> str:
        """Name of the int8 tensor."""
        return f"{self.name}.int8"

    @property
    def scales(self) -> str:
        """Name of the float32 vector, one scale a row of the parent's matrices."""
        return f"{self.name}.scale"

    @property
    def rows(self) -> int:
        """N, of all tensors together."""
        return sum(shape[0] for _, shape in self.tensors)

    @property
    def shape(self) -> Shape:
        """Of the int8 tensor."""
        columns = self.tensors[0][1][1]
        return (columns, self.rows) if self.transposed else (self.rows, columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parent's tensors."""
        return tuple(name for name, _ in self.tensors)


@dataclass(frozen=True)
class EightBits:
    """The matrices of a parent that are kept in eight bits, in the order of its tensors, and the names of those that
    are not because they are odd.
    """

    matrices: tuple[EightBitMatrix, ...]
    odd: tuple[str, ...]

    @classmethod
    def of(cls, parent: Architecture, budgets: Iterable[Budget], prefix: str = "backbone") -> EightBits:
        """Those of a parent whose budgets are these, the ones that are not exported now too."""
        shapes = [parent.tensor_shapes(prefix)]
        shapes += [{n: runs_shape(r) for n, r in tensor_runs(parent, budget, prefix).items()} for budget in budgets]
        matrices, odd = list[EightBitMatrix](), list[str]()
        for name, members in _candidates(parent, prefix):
            names = [stored.name for stored in members]
            transposed = members[0].tensor is not EMBEDDINGS
            if transposed and any(_odd([kept[n] for n in names]) for kept in shapes if names[0] in kept):
                odd += names
            else:
                matrices.append(EightBitMatrix(name, tuple((n, shapes[0][n]) for n in names), transposed))
        return cls(tuple(matrices), tuple(odd))

    @property
    def tensors(self) -> dict[str, EightBitMatrix]:
        """The matrix that a tensor of the parent is in, by the tensor's name."""
        return {name: matrix for matrix in self.matrices for name in matrix.names}


def _candidates(parent: Architecture, prefix: str) -> Iterator[tuple[str, list[Stored]]]:
    """(name, tensors) of every matrix, joined where its kind of layer says so."""
    groups: dict[str, list[Stored]] = {}
    for stored in parent.tensors(prefix):
        if stored.tensor.is_matrix:
            groups.setdefault(joined_name(stored), []).append(stored)
    yield from groups.items()


def joined_name(stored: Stored) -> str:
    """What the matrix is called that a tensor is in; its own name where it is joined with none."""
    joined = {} if stored.layer is None else stored.layer.kind.joined
    return stored.name.removesuffix(stored.tensor.name) + joined.get(stored.tensor.name, stored.tensor.name)


def _odd(shapes: list[Shape]) -> bool:
    return sum(shape[0] for shape in shapes) % 2 == 1 or shapes[0][1] % 2 == 1
