"""The forecast: of what it grows with, and of which measured runs it holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from elastic_export.evaluate.passage import Passage, Window
from elastic_export.evaluate.sub_model import SubModel
from elastic_export.layers.architecture import Architecture
from elastic_export.plan.work import Cost
from elastic_export.propose.cost import proposing_cost
from elastic_export.propose.grid import Grid
from elastic_export.propose.measuring import Cut, Measuring
from elastic_export.propose.propose import Request, default_effort
from elastic_export.propose.target import Target, parameter_measure
from random_checkpoint import SHAPES
from synthetic import NANO_12B


class Shapes(Measuring):
    """Subjects without weights: nothing is read."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def subject(self, cut: Cut) -> tuple[SubModel, str]:
        budget, parent = self._grid.budget(cut.point), self._grid.parent
        weights = None  # type: ignore[var-annotated]
        return SubModel("", budget.architecture(parent), budget.kept_layers(parent), "model", "bf16", weights), "fp32"


def passage(tokens: int) -> Passage:
    return Passage("", "", (Window(np.zeros(tokens + 1, np.int64), tokens),), tokens, tokens, (), 1024, 1023, False)


def cost(arch: Architecture, search: int, rounds: int = 2) -> Cost:
    grid = Grid(arch, "bf16")
    grid.order = tuple(range(len(arch.pattern)))
    targets = [Target(str(part), int(part * arch.parameters())) for part in (0.75, 0.5)]
    request = Request(targets, parameter_measure(), passage(search), passage(1023), rounds)
    return proposing_cost(request, grid, Shapes(grid))


def test_a_12b_takes_an_hour_of_two_processors_and_little_memory() -> None:
    """At 135 GFLOPS, as `tests/bench/evaluate.py` has them of the 12B."""
    effort = default_effort(NANO_12B)
    found = cost(NANO_12B, effort.tokens, effort.rounds)
    assert found.work.products / 135e9 < 3600
    assert found.memory < 5e9


def test_the_measured_memory_is_foreseen() -> None:
    """`tests/bench/propose.py --shape 1b4`: 1.55 GB."""
    assert cost(SHAPES["1b4"].architecture, 192).memory == pytest.approx(1.55e9, rel=0.25)


@pytest.mark.parametrize("more", [{"search": 384}, {"rounds": 3}])
def test_more_tokens_and_rounds_take_longer(more: dict[str, int]) -> None:
    arch = SHAPES["1b4"].architecture
    few, many = cost(arch, 192), cost(arch, **{"search": 192, **more})
    assert many.work.products > few.work.products
    shallow = replace(arch, pattern=arch.pattern[:9], ffn_sizes=arch.ffn_sizes[:4], mamba_heads=arch.mamba_heads[:4])
    assert cost(shallow, 192).work.products < few.work.products
