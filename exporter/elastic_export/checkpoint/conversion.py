"""In which dtype an export stores each weight, and the conversion to it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from elastic_export.dtypes import DTYPES
from elastic_runtime.errors import BuildError

Array = npt.NDArray[Any]


def stored_dtype(tensor_dtype: str, checkpoint_dtype: str, precision: str) -> str:
    """`bf16`, `fp16` or `fp32`: a tensor of the checkpoint's own dtype takes the export's precision; vectors that the
    checkpoint keeps in float32 stay float32.
    """
    return precision if tensor_dtype == checkpoint_dtype else tensor_dtype


def convert(array: Array, dtype: str, name: str) -> Array:
    """The array in `bf16`, `fp16` or `fp32`; itself where it is so already. `Loss.of` says what it took.

    Raises:
        BuildError: `dtype` cannot hold a value of the tensor `name`.
    """
    wanted = DTYPES[dtype].numpy
    if array.dtype == wanted:
        return array
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    lost = np.isinf(cast) & np.isfinite(array)
    if lost.any():
        expected, found = f"values that {dtype} can hold", str(array[lost][0])
        raise BuildError(f"tensor {name!r}", expected=expected, found=found, todo="use bf16 or fp32")
    return cast


@dataclass(frozen=True)
class Loss:
    """What a conversion took from the values of a tensor.

    Args:
        values: how many there are.
        zeros: how many were not zero and became it.
        shortened: how many became subnormal numbers, which have fewer digits, and are not what they were.
        squares: sum of the squares of what they were.
        errors: sum of the squares of what that and they differ by.
    """

    values: int = 0
    zeros: int = 0
    shortened: int = 0
    squares: float = field(default=0.0, compare=False)
    errors: float = field(default=0.0, compare=False)

    @classmethod
    def of(cls, before: Array, after: Array) -> Loss:
        """Compare an array and what `convert` made of it."""
        if before.dtype.itemsize < after.dtype.itemsize or before.dtype == after.dtype:
            return cls(after.size)  # a wider dtype holds every value of a narrower one
        was, became = (array.astype(np.float32, copy=False) for array in (before, after))
        with np.errstate(invalid="ignore", over="ignore"):  # of infinities, which conversions keep
            squares = np.sum(np.square(was), dtype=np.float64), np.sum(np.square(was - became), dtype=np.float64)
        small = np.abs(became) < float(ml_dtypes.finfo(after.dtype).smallest_normal)  # type: ignore[no-untyped-call]
        was, became = was[small], became[small]
        zeros = int(np.count_nonzero(was[became == 0]))
        return cls(after.size, zeros, int(np.count_nonzero(was != became)) - zeros, *map(float, squares))

    def __add__(self, other: Loss) -> Loss:
        """Both together."""
        return Loss(
            self.values + other.values,
            self.zeros + other.zeros,
            self.shortened + other.shortened,
            self.squares + other.squares,
            self.errors + other.errors,
        )

    @property
    def relative_error(self) -> float:
        """‖after - before‖ / ‖before‖ to three digits, which do not depend on the order of the sums."""
        return float(f"{math.sqrt(self.errors / self.squares):.3g}") if self.squares else 0.0

    def report(self) -> dict[str, int]:
        """The figures by the names of report.json."""
        return {"values": self.values, "became_zero": self.zeros, "lost_digits": self.shortened}


@dataclass
class Conversion:
    """What the weights of one sub-model lost on their way from a checkpoint's dtype to an export's."""

    source: str
    dtype: str
    tensors: dict[str, Loss] = field(default_factory=dict)

    def add(self, name: str, loss: Loss) -> None:
        """Count a piece of a tensor."""
        self.tensors[name] = self.tensors.get(name, Loss()) + loss

    def report(self) -> dict[str, Any]:
        """The section of report.json: all weights together, and the tensor with the largest share of zeros."""
        worst, total = self._worst(), sum(self.tensors.values(), Loss())
        return {
            "from": self.source,
            "to": self.dtype,
            **total.report(),
            "relative_error": total.relative_error,
            "worst": None if worst is None else {"tensor": worst, **self.tensors[worst].report()},
        }

    def warning(self) -> str:
        """One line for the user where a weight became zero, else nothing."""
        total, worst = sum(self.tensors.values(), Loss()), self._worst()
        if worst is None or not total.zeros:
            return ""
        of_worst = self.tensors[worst]
        return (
            f"{total.zeros} of {total.values} weights are too small for {self.dtype} and became zero, in {worst} "
            f"{of_worst.zeros} of {of_worst.values}; {total.shortened} more lost digits"
        )

    def _worst(self) -> str | None:
        lossy = [name for name, loss in self.tensors.items() if loss.zeros or loss.shortened]

        def share(name: str) -> tuple[float, float]:
            loss = self.tensors[name]
            return loss.zeros / loss.values, loss.shortened / loss.values

        return max(lossy, key=share, default=None)
