"""Proposes budgets for a parent whose axes are sorted: measure single cuts, search, measure what was found.

1. The parent without each of its layers: the order in which layers leave (ranking.py).
2. Every axis alone at a few widths, and depth by that order: what to expect of a budget (losses.py). Of every axis also
   the last channels in place of the first, which must cost far more where it is sorted.
3. For each target, the largest first, points of that size inside the next larger budget, compared by their divergence
   from the parent (search.py).
4. What was found, on more of the text.

Every step is kept as soon as it is measured (store.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elastic_export.evaluate.passage import Passage
from elastic_export.evaluate.score import Scored
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.progress import Progress
from elastic_export.propose.grid import Grid, Point
from elastic_export.propose.losses import SORTED, Losses, contrast_points, curve, level_points
from elastic_export.propose.measuring import Cut, Measuring
from elastic_export.propose.ranking import LayerLoss
from elastic_export.propose.search import Search
from elastic_export.propose.target import Measure, Target

_LARGE = 10**9


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        targets: the largest first.
        measure: what they are of.
        search: the text that points are compared on.
        final: the text that the found ones are measured on.
        rounds: walks of the search for each target.
    """

    targets: Sequence[Target]
    measure: Measure
    search: Passage
    final: Passage
    rounds: int


@dataclass(frozen=True)
class Effort:
    """How thoroughly is searched where nobody says: tokens that points are compared on, walks for each target."""

    tokens: int
    rounds: int


def default_effort(parent: Architecture) -> Effort:
    """An hour or so for a 12B on two processors, seconds for a small model."""
    return Effort(192, 2) if parent.parameters() > _LARGE else Effort(1024, 8)


@dataclass(frozen=True)
class AxisContrast:
    """Whether an axis is sorted.

    Attributes:
        key: the axis in budget files.
        first, last: losses where it keeps as many of its first channels, or of its last ones; nats a token.
    """

    key: str
    first: float
    last: float

    @property
    def is_sorted(self) -> bool:
        """Whether the first channels matter more."""
        return self.first <= SORTED * self.last


@dataclass(frozen=True)
class Proposal:
    """What was found.

    Attributes:
        budgets: one a target, each nested in the one before.
        axes: whether they are sorted.
        layers: what each costs alone, in the order in which they leave.
        parent: what the parent says of the final text.
        scores: what each budget says of it.
    """

    budgets: Sequence[Budget]
    axes: Sequence[AxisContrast]
    layers: dict[int, LayerLoss]
    parent: Scored
    scores: Sequence[Scored]

    @property
    def warnings(self) -> list[str]:
        """What the user must know of it."""
        mixed = [axis for axis in self.axes if not axis.is_sorted]
        if not mixed:
            return []
        listed = ", ".join(f"{axis.key} (KL {axis.first:.3g} and {axis.last:.3g})" for axis in mixed)
        return [
            f"not sorted by importance: {listed}: the first channels cost about as much as the last ones. An elastic "
            "checkpoint has them sorted; of this one any budget may be poor"
        ]


def propose(request: Request, grid: Grid, measuring: Measuring, progress: Progress) -> Proposal:
    """Find budgets.

    Raises:
        InputError: a value of the model is not finite, or no budget has the size.
    """
    layers = measuring.layers(request.search)
    grid.order = tuple(sorted(layers, key=lambda layer: (layers[layer].mse, layer)))  # 1
    losses, axes = _single_cuts(grid, layers, measuring, request.search)
    points: list[Point] = []
    for target in request.targets:
        points.append(_found(target, points[-1] if points else grid.whole, losses, measuring, request))
    parent, *scores = measuring.scores([Cut(point) for point in points], request.final, "as found")  # 4
    budgets = [grid.budget(point, target.name) for point, target in zip(points, request.targets, strict=True)]
    found = Proposal(budgets, axes, {layer: layers[layer] for layer in grid.order}, parent, scores)
    progress.say_all(found.warnings)
    return found


def _single_cuts(
    grid: Grid, layers: dict[int, LayerLoss], measuring: Measuring, passage: Passage
) -> tuple[Losses, list[AxisContrast]]:
    """2"""
    levels, contrasts = level_points(grid), contrast_points(grid)
    cuts = [Cut(point) for points in levels for point in points]
    for point in contrasts:
        cuts += [] if point is None else [Cut(point), Cut(point, last=True)]
    cuts = list(dict.fromkeys(cuts))
    by_cut = dict(zip(cuts, measuring.losses(cuts, passage, "one axis cut"), strict=True))
    by_point = {cut.point: loss for cut, loss in by_cut.items() if not cut.last}
    curves = [curve(grid, dimension, points, by_point) for dimension, points in enumerate(levels)]
    axes = [
        AxisContrast(axis.key, by_point[point], by_cut[Cut(point, last=True)])
        for axis, point in zip(grid.axes, contrasts, strict=True)
        if point is not None
    ]
    return Losses(grid, curves, {layer: loss.divergence for layer, loss in layers.items()}), axes


def _found(target: Target, within: Point, losses: Losses, measuring: Measuring, request: Request) -> Point:
    """3"""

    def measured(points: Sequence[Point]) -> list[float]:
        return measuring.losses([Cut(point) for point in points], request.search, target.name)

    return Search(losses, request.measure, target, within).run(measured, request.rounds).point
