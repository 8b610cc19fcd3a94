"""What proposing takes, counted from the walks that it makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from elastic_export.evaluate.cost import evaluation_cost, weight_bytes, weight_elements
from elastic_export.evaluate.evaluate import Subject
from elastic_export.evaluate.passage import Passage
from elastic_export.plan.work import Cost, Work
from elastic_export.propose.grid import Grid
from elastic_export.propose.losses import contrast_points, level_points
from elastic_export.propose.measuring import LAYERS, Cut, Measuring
from elastic_export.propose.propose import Request
from elastic_export.propose.ranking import RUNNERS
from elastic_export.propose.search import TOGETHER
from elastic_runtime.format.safetensors import itemsize


def proposing_cost(request: Request, grid: Grid, measuring: Measuring) -> Cost:
    """All of it, were nothing measured yet. Of budgets that are not known a model of the target's share is meant."""
    parent = measuring.subject(Cut(grid.whole))
    cuts = [Cut(point) for points in level_points(grid) for point in points]
    cuts += [Cut(point, last=True) for point in contrast_points(grid) if point is not None]
    walks = [_walk([parent, *map(measuring.subject, cuts[n : n + TOGETHER])], request.search)
             for n in range(0, len(cuts), TOGETHER)]  # fmt: skip
    whole = request.measure.of(grid.parent)
    shares = [target.limit / whole for target in request.targets]
    for share in shares:
        walks += request.rounds * [_shared(_walk([parent], request.search), 1 + share * TOGETHER)]
    walks.append(_shared(_walk([parent], request.final), 1 + sum(shares)))
    most = max(_ranking_memory(parent, request.search), *(walk.memory for walk in walks))
    return Cost(most, sum((walk.work for walk in walks), _ranking_work(parent, grid, request.search)))


def _walk(subjects: Sequence[Subject], passage: Passage) -> Cost:
    return evaluation_cost(subjects, passage)


def _shared(one: Cost, times: float) -> Cost:
    """As many models' work; the weights are read once."""
    read = one.work.read
    return Cost(one.memory, one.work * times + Work(read=read * (1 - times)))


def _ranking_work(parent: Subject, grid: Grid, passage: Passage) -> Work:
    """Streams begin where they differ: of n layers on the mean half are walked."""
    model, _ = parent
    count, tokens = len(grid.parent.pattern), sum(len(window.ids) for window in passage.windows)
    walks, used = -(-count // LAYERS), weight_elements(model.architecture)
    models = count / 2 + RUNNERS * walks
    moved = RUNNERS * walks * used * (3 * itemsize(model.dtype) + 4)
    return Work(products=2.0 * tokens * used * models, moved=float(moved), read=float(walks * weight_bytes(model)))


def _ranking_memory(parent: Subject, passage: Passage) -> int:
    """Two runners with half of a walk's streams each, as windows of one text, and those of one twice, as a new one is
    joined to them.
    """
    model, _ = parent
    streams = 1 + -(-min(LAYERS, len(model.layers)) // RUNNERS)
    text = replace(passage, windows=passage.windows * streams, tokens=passage.tokens * streams)
    joined = 4 * sum(len(window.ids) for window in text.windows) * model.architecture.hidden_size
    return evaluation_cost([parent] * RUNNERS, text).memory + joined
