"""The search: points of the right size, those that look best measured, and from the best one on to its neighbours."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from elastic_export.propose.grid import Point
from elastic_export.propose.losses import Losses
from elastic_export.propose.target import TOLERANCE, Measure, Target
from elastic_runtime.errors import InputError

#: Points that are measured in one pass over the weights, beside the parent.
TOGETHER = 7
_STEPS = 16  # of an axis, and twice as many of the layers: how far apart neighbours are
_BACK, _GONE = 3, 12  # layers that are exchanged: of the last that left, of the first that did not
_EVERY = 1 << 12  # points of a grid that is small enough to look at all of it
#: Measures points: their losses, in their order.
Try = Callable[[Sequence[Point]], list[float]]


class Found(NamedTuple):
    """A point and what it costs."""

    point: Point
    loss: float


class Search:
    """The search for one target.

    Args:
        losses: what single cuts cost.
        measure: what the target is of.
        target: the size.
        within: the larger budget that this one is to be nested in.
    """

    def __init__(self, losses: Losses, measure: Measure, target: Target, within: Point) -> None:
        self._losses, self._grid, self._measure, self._target, self._within = (
            losses,
            losses.grid,
            measure,
            target,
            within,
        )
        self._sizes: dict[Point, int] = {}

    def run(self, measure: Try, rounds: int) -> Found:
        """Measure what looks best, then neighbours of the best, in so many rounds or until there are no others.

        Raises:
            InputError: no point has the size.
        """
        tried: dict[Point, float] = {}
        points = self._starts()
        if not points:
            raise self._no_point()
        for _ in range(rounds):
            tried.update(zip(points, measure(points), strict=True))
            best = min(tried, key=lambda point: (tried[point], point.counts, sorted(point.skipped)))
            # Both in turn: neighbours alone may be a valley, what is expected alone is a guess.
            both = itertools.chain(
                *itertools.zip_longest(
                    self._informed(self._neighbours(best), tried), self._informed(self._every, tried)
                )
            )
            points = [point for point in dict.fromkeys(both) if point is not None][:TOGETHER]
            if not points:
                break
        return Found(best, tried[best])

    def _informed(self, points: Iterable[Point], tried: Mapping[Point, float]) -> list[Point]:
        """Those that were not tried, what looks best first by all that was."""
        return sorted(
            (point for point in points if point not in tried), key=lambda point: self._losses.informed(point, tried)
        )

    def _starts(self) -> list[Point]:
        """The cheapest way down, the cheapest that leaves one dimension alone, for each, and what looks best of all."""
        spared = [None, *self._grid.dimensions]
        found = self._fitting(self._descent(self._within, dimension) for dimension in spared)
        return list(dict.fromkeys([*sorted(found, key=self._losses.expected), *self._every]))[:TOGETHER]

    def _descent(self, point: Point, spared: int | None) -> Point | None:
        """Down to the size, always by the step that costs least for what it saves, and then filled up."""
        while self._size(point) > self._target.limit:
            steps = [
                (self._price(point, down), dimension, down)
                for dimension in self._grid.dimensions
                if dimension != spared and (down := self._down(point, dimension)) is not None
            ]
            if not steps:
                return None
            *_, point = min(steps, key=lambda step: step[:2])
        return self._filled(point)

    @cached_property
    def _every(self) -> list[Point]:
        """The points of a small grid, what looks best first: all but for the finest dimension, and that filled up.

        None of a large one. There units are small beside the target, and every descent ends in a point that fits.
        """
        rooms = [self._ways(dimension) for dimension in self._grid.dimensions]
        finest = max(self._grid.dimensions, key=lambda dimension: len(rooms[dimension]))
        rooms[finest] = rooms[finest][-1:]
        if math.prod(map(len, rooms)) > _EVERY:
            return []
        found = self._fitting(self._combined(steps, finest) for steps in itertools.product(*rooms))
        return sorted(found, key=self._losses.expected)

    def _combined(self, steps: Sequence[int], finest: int) -> Point | None:
        point: Point | None = self._within
        for dimension, step in enumerate(steps):
            point = None if point is None else self._grid.moved(point, dimension, -step)
        if point is None:
            return None
        # Most of a grid are too small however wide, or too large however narrow: one size tells of them, or two.
        widest = self._grid.moved(point, finest, self._grid.room(point, finest, self._within)) or point
        if self._size(widest) <= self._target.limit:
            return widest
        return None if self._size(point) > self._target.limit else self._raised(point, finest)

    def _ways(self, dimension: int) -> list[int]:
        """How many steps down the larger budget can go there."""
        return list(itertools.takewhile(lambda by: self._grid.moved(self._within, dimension, -by), itertools.count()))

    def _neighbours(self, point: Point) -> list[Point]:
        """One dimension a step up or down and another one, or all others, the other way, and layers exchanged."""
        return self._fitting([*self._pushed(point), *self._traded(point), *self._swapped(point)])

    def _pushed(self, point: Point) -> Iterator[Point | None]:
        for dimension in self._grid.dimensions:
            room = self._grid.room(point, dimension, self._within)
            up = self._grid.moved(point, dimension, min(room, self._steps[dimension]))
            if up is not None and up != point:
                yield self._descent(up, dimension)

    def _traded(self, point: Point) -> Iterator[Point]:
        for dimension in self._grid.dimensions:
            down = self._down(point, dimension)
            if down is None:
                continue
            yield self._filled(down, spared=dimension)
            for other in self._grid.dimensions:
                if other != dimension:
                    yield self._filled(self._raised(down, other), spared=dimension)

    def _swapped(self, point: Point) -> Iterator[Point]:
        """Layers judged one by one may matter otherwise together."""
        order = self._grid.order
        gone = [layer for layer in reversed(order) if layer in point.skipped - self._within.skipped][:_BACK]
        for back in gone:
            for layer in [layer for layer in order if layer not in point.skipped][:_GONE]:
                swapped = Point(point.counts, point.skipped - {back} | {layer})
                if self._grid.may_skip(swapped.skipped) and self._size(swapped) <= self._target.limit:
                    yield self._filled(swapped)

    def _filled(self, point: Point, spared: int | None = None) -> Point:
        """Raised where it gains most for its size, and then elsewhere, until the target has no more room."""
        raises = []
        for dimension in self._grid.dimensions:
            up = self._grid.moved(point, dimension, 1) if self._grid.room(point, dimension, self._within) else None
            if up is not None and dimension != spared:
                raises.append((-self._price(up, point), dimension))
        for _, dimension in sorted(raises):
            point = self._raised(point, dimension)
        return point

    def _raised(self, point: Point, dimension: int) -> Point:
        """As far up as the target has room."""
        fits, no = 0, self._grid.room(point, dimension, self._within) + 1
        while no - fits > 1:
            middle = (fits + no) // 2
            up = self._grid.moved(point, dimension, middle)
            if up is not None and self._size(up) <= self._target.limit:
                fits = middle
            else:
                no = middle
        return self._grid.moved(point, dimension, fits) or point

    def _down(self, point: Point, dimension: int) -> Point | None:
        """A neighbour's step down; where the grid ends before, none."""
        step = self._steps[dimension]
        return self._grid.moved(point, dimension, -step) or self._grid.moved(point, dimension, -1)

    @cached_property
    def _steps(self) -> list[int]:
        widths = [max(1, round(count / _STEPS)) for count in self._grid.whole.counts]
        return [*widths, max(1, round(len(self._grid.parent.pattern) / _STEPS / 2))]

    def _price(self, larger: Point, smaller: Point) -> float:
        """Expected loss for what is saved."""
        saved = self._size(larger) - self._size(smaller)
        return (self._losses.expected(smaller) - self._losses.expected(larger)) / max(1, saved)

    def _fitting(self, points: Iterable[Point | None]) -> list[Point]:
        """Those of the target's size inside the larger budget, each once."""
        found = [point for point in dict.fromkeys(points) if point is not None and point.within(self._within)]
        return [point for point in found if self._target.least <= self._size(point) <= self._target.limit]

    def _size(self, point: Point) -> int:
        if point not in self._sizes:
            self._sizes[point] = self._measure.of(self._grid.architecture(point))
        return self._sizes[point]

    def _no_point(self) -> InputError:
        """What was looked at on the way says what sizes there are beside, of which those are named that a target can
        have: inside the larger budget, and further from its size than the tolerance.
        """
        text, most = self._measure.text, self._size(self._within) * (1 - TOLERANCE)
        seen = {size for point, size in self._sizes.items() if point.within(self._within)}
        below = max((size for size in seen if size < self._target.least), default=None)
        above = min((size for size in seen if self._target.limit < size <= most / (1 + TOLERANCE)), default=None)
        nearest = " and ".join(text(size) for size in (below, above) if size is not None)
        return InputError(
            f"{self._measure.option} {self._target.name}",
            expected=f"a budget from {text(self._target.least)} to {text(self._target.limit)}",
            found="none that kernels and engines take in whole units"
            + (f"; the nearest: {nearest}" if nearest else ""),
            # Sizes are told rounded.
            todo=f"name a size that is {TOLERANCE / 2:.0%} above a nearest one" if nearest else "name another size",
        )
