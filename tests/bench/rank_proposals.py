"""Where proposed budgets rank among random nested ones of their sizes, and beside a checkpoint's own.

    PYTHONPATH=tests python tests/bench/rank_proposals.py CHECKPOINT PROPOSED --text FILE [--tokens N] [--own NAME,…]
        [--random N] [--seed N]

PROPOSED is a file of `elastic-export budgets propose`; FILE should be another text than that one's. A random chain of
budgets begins at the parent and loses a unit of some axis, or some layer, by lot, until it has the next size; all have
the proposed ones' sizes, at most, and at least 98 % of them. --own names budgets of the checkpoint's own file. All are
scored in walks of eight, and listed by their KL divergence from the parent.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from elastic_export.checkpoint.budgets import read_budgets
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.cli.evaluate import tokenizer_of
from elastic_export.evaluate.evaluate import evaluate
from elastic_export.evaluate.from_checkpoint import PARENT, sub_model
from elastic_export.evaluate.passage import Passage, read_passage
from elastic_export.evaluate.result import Evaluation, Measured, Reference, Source, evaluation
from elastic_export.layers.budget import Budget
from elastic_export.progress import Progress
from elastic_export.propose.grid import Grid, Point
from elastic_export.propose.target import TOLERANCE
from elastic_runtime.errors import ElasticError

_WALK = 8


def main() -> None:
    """Draw, score, list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("proposed", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--own", default="", metavar="NAME,…")
    parser.add_argument("--random", type=int, default=20, help="chains that are drawn")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        _rank(arguments)
    except ElasticError as error:
        sys.exit(str(error))


def _rank(arguments: argparse.Namespace) -> None:
    checkpoint = Checkpoint.open(arguments.checkpoint, require_budgets=bool(arguments.own))
    arch = checkpoint.architecture
    proposed = list(read_budgets(arguments.proposed, arch)[0].values())
    sizes = [budget.architecture(arch).parameters() for budget in proposed]
    rng = np.random.default_rng(arguments.seed)
    chains = [random_chain(Grid(arch, "bf16"), sizes, rng) for _ in range(arguments.random)]
    passage = read_passage(
        arguments.text, tokenizer_of(checkpoint.path), vocab=arch.vocab_size, context=1024, tokens=arguments.tokens
    )
    budgets = [replace(budget, name=f"proposed {budget.name}") for budget in proposed]
    budgets += [replace(budget, name=f"random {number}.{place}") for number, chain in enumerate(chains)
                for place, budget in enumerate(chain)]  # fmt: skip
    budgets += [replace(checkpoint.budgets[name], name=f"own {name}") for name in arguments.own.split(",") if name]
    found = _scored(checkpoint, budgets, passage)
    for number, budget in enumerate(proposed):
        mine = [row for row in found.rows if row.budget.startswith("random") and row.budget.endswith(f".{number}")]
        rows = [row for row in found.rows if row.budget == f"proposed {budget.name}"]
        rank = 1 + sum(row.kl_divergence < rows[0].kl_divergence for row in mine)
        print(f"{budget.name}: {sizes[number]:,} parameters, rank {rank} of {len(mine) + 1} by KL divergence")
        for row in sorted([*rows, *mine], key=lambda row: row.kl_divergence):
            print(f"  {row.budget:<16} {row.parameters:>14,}  KL {row.kl_divergence:.4f}  bpb {row.bits_per_byte:.4f}")
    for row in found.rows:
        if row.budget == PARENT or row.budget.startswith("own"):
            print(f"  {row.budget:<16} {row.parameters:>14,}  KL {row.kl_divergence:.4f}  bpb {row.bits_per_byte:.4f}")


def random_chain(grid: Grid, sizes: Sequence[int], rng: np.random.Generator) -> list[Budget]:
    """Budgets of at most these sizes, and at least 98 % of them, each nested in the one before."""
    while True:
        points = list(_walk(grid, sizes, rng))
        if len(points) == len(sizes):
            return [grid.budget(point) for point in points]


def _walk(grid: Grid, sizes: Sequence[int], rng: np.random.Generator) -> Iterator[Point]:
    """The points of a walk down that have the sizes; where it steps over one, it ends."""
    point = grid.whole
    for size in sizes:
        while _parameters(grid, point) > size:
            grid.order = tuple(int(layer) for layer in rng.permutation(len(grid.parent.pattern)))
            down = grid.moved(point, int(rng.integers(len(grid.dimensions))), -1)
            if down is None and all(grid.moved(point, dimension, -1) is None for dimension in grid.dimensions):
                return
            point = down or point
        if _parameters(grid, point) < (1 - TOLERANCE) * size:
            return
        yield point


def _parameters(grid: Grid, point: Point) -> int:
    return grid.architecture(point).parameters()


def _scored(checkpoint: Checkpoint, budgets: Sequence[Budget], passage: Passage) -> Evaluation:
    arch, precision = checkpoint.architecture, "fp32"
    parent = Budget.full(arch, PARENT)
    found: list[Measured] = []
    for begin in range(0, len(budgets), _WALK):
        walk = [parent, *budgets[begin : begin + _WALK]]
        scores = evaluate([(sub_model(checkpoint, b), precision) for b in walk], 0, passage, Progress())
        rows = zip(walk, scores, strict=True)
        found += [Measured(b.name, b.architecture(arch), "fp32", score) for b, score in rows][begin > 0 :]
    source = Source("checkpoint", checkpoint.name, checkpoint.dtype)
    return evaluation(source, passage, found, Reference(PARENT, "fp32"), 16384)


if __name__ == "__main__":
    main()
