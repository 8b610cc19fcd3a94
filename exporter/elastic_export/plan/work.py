"""Work that a run has to do, in amounts, and how fast a machine does it: what minutes are reckoned from."""

from __future__ import annotations

from dataclasses import astuple, dataclass


@dataclass(frozen=True)
class Work:
    """Amounts of work. `Rates` has the same fields, each as so much a second.

    Attributes:
        products: floating-point operations of float32 matrix products over hundreds of rows.
        double_products: the same in float64.
        few_rows: bytes of float32 matrices that are multiplied with a few rows: each byte is used once or twice, so
            memory sets the pace.
        moved: bytes read and written by arithmetic on single elements and by conversions.
        digested: bytes through sha256, on one thread.
        read: bytes from the disk that holds the checkpoint.
        written: bytes to the disk that holds the output.
        steps: rounds of a small Python loop (`rates.measure_rates`), in which the work of interpreters, converters and
            builders is counted that no formula of ours gives.
    """

    products: float = 0.0
    double_products: float = 0.0
    few_rows: float = 0.0
    moved: float = 0.0
    digested: float = 0.0
    read: float = 0.0
    written: float = 0.0
    steps: float = 0.0

    def __add__(self, other: Work) -> Work:
        """Both, one after the other."""
        return Work(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> Work:
        """The same `times` times."""
        return Work(*(amount * times for amount in astuple(self)))


@dataclass(frozen=True)
class Rates:
    """What a machine does of each kind of `Work` in a second."""

    products: float
    double_products: float
    few_rows: float
    moved: float
    digested: float
    read: float
    written: float
    steps: float

    def seconds(self, work: Work) -> float:
        """How long a work takes, its parts one after the other."""
        return float(sum(amount / rate for amount, rate in zip(astuple(work), astuple(self), strict=True)))


@dataclass(frozen=True)
class Cost:
    """What a stage of a run takes: anonymous bytes of memory at the moment of most, and its work."""

    memory: int
    work: Work
