"""What cuts are expected to cost, from what single cuts cost: a guess that chooses what is worth measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from elastic_export.propose.grid import Grid, Point

#: Parts of an axis that are kept where it is measured.
LEVELS = (3 / 4, 1 / 2, 1 / 4)
#: That part of which the last channels are measured beside the first ones.
CONTRAST = 3 / 4
#: Parts of the layers that are left out where depth is measured.
DEPTHS = (1 / 8, 1 / 4, 3 / 8)
_NEAR = 0.05  # apart: of two points that near, one tells of a third nearly as much as the other
#: An axis is sorted where its first channels cost at most this part of what its last ones do.
SORTED = 2 / 3


@dataclass(frozen=True)
class Losses:
    """Mean KL divergences from the parent, nats a token.

    Attributes:
        grid: whose points are meant.
        curves: of every dimension: (units kept, or layers left out; loss), the parent first.
        single: by layer, where it alone is left out.
    """

    grid: Grid
    curves: Sequence[Sequence[tuple[int, float]]]
    single: Mapping[int, float]

    def expected(self, point: Point) -> float:
        """The sum of what every dimension costs alone. Together they cost more or less; points are only compared."""
        *widths, depth = self.curves
        total = sum(_between(curve, count) for curve, count in zip(widths, point.counts, strict=True))
        usual = self.grid.first(len(point.skipped))
        other = sum(self.single[layer] for layer in point.skipped) - sum(self.single[layer] for layer in usual)
        return total + _between(depth, len(point.skipped)) + other

    def informed(self, point: Point, tried: Mapping[Point, float]) -> float:
        """What is expected, and how far measured points were from theirs, the nearer ones above all: cuts that a model
        bears alone it may not bear together.
        """
        weights = {other: 1 / (_NEAR + self._distance(point, other)) ** 2 for other in tried}
        wrong = sum(weight * (tried[other] - self.expected(other)) for other, weight in weights.items())
        return self.expected(point) + wrong / sum(weights.values())

    def _distance(self, one: Point, other: Point) -> float:
        """The sum over dimensions, each in parts of all of it."""
        counts = zip(one.counts, other.counts, self.grid.whole.counts, strict=True)
        layers = len(one.skipped ^ other.skipped) / len(self.grid.parent.pattern)
        return sum(abs(mine - theirs) / most for mine, theirs, most in counts) + layers


def level_points(grid: Grid) -> list[list[Point]]:
    """The points by which every dimension is measured alone, by dimension."""
    found = []
    for dimension, most in enumerate(grid.whole.counts):
        counts = {max(grid.least[dimension], round(level * most)) for level in LEVELS}
        moved = [grid.moved(grid.whole, dimension, count - most) for count in sorted(counts, reverse=True)]
        found.append([point for point in moved if point is not None and point != grid.whole])
    skipped = {grid.first(max(1, round(part * len(grid.parent.pattern)))) for part in DEPTHS} - {frozenset()}
    return [*found, [Point(grid.whole.counts, layers) for layers in sorted(skipped, key=len)]]


def contrast_points(grid: Grid) -> list[Point | None]:
    """By axis the point at which first and last channels are compared; None where it cannot be cut."""
    found = []
    for dimension, most in enumerate(grid.whole.counts):
        count = min(most - 1, max(grid.least[dimension], round(CONTRAST * most)))
        found.append(grid.moved(grid.whole, dimension, count - most) if grid.least[dimension] <= count else None)
    return found


def curve(
    grid: Grid, dimension: int, points: Sequence[Point], losses: Mapping[Point, float]
) -> list[tuple[int, float]]:
    """Measured losses by place on a dimension. What costs less than a smaller cut is chance: it costs as much."""
    whole = 0 if dimension == grid.depth else grid.whole.counts[dimension]
    places = [len(p.skipped) if dimension == grid.depth else p.counts[dimension] for p in points]
    rising = accumulate((losses[point] for point in points), max)
    return [(whole, 0.0), *zip(places, rising, strict=True)]


def _between(points: Sequence[tuple[int, float]], at: int) -> float:
    """On the line between its neighbours; beyond the last one as steeply as before it."""
    for (near, low), (far, high) in pairwise(points):
        if min(near, far) <= at <= max(near, far):
            return low + (high - low) * (at - near) / (far - near)
    if len(points) < 2:
        return 0.0
    (near, low), (far, high) = points[-2:]
    return high + (high - low) * (at - far) / (far - near)
