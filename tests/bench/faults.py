"""Seeded faults at the real size: one in each layer kind at the first, middle and last depth, verified in one pass.

    PYTHONPATH=tests python tests/bench/faults.py CHECKPOINT [--budget NAME]

The budget's file is emitted as an export emits it; nine of its weights are handed over as a wrong slice would: two
neighbouring heads or channels exchanged, all else right. The rounded check computes each layer from the file's own
stream, so that every fault must be found in its own layer, and no other layer may be blamed; exit status 1 where that
is not so. CHECKPOINT is one of `tests/random_checkpoint.py`, with BF16 weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.dtypes import DTYPES
from elastic_export.emit import EmittedModel, emit_model
from elastic_export.graph.facts import clone_with_facts, facts_of
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.attention import ATTENTION
from elastic_export.layers.budget import Budget
from elastic_export.layers.kind import LayerKind
from elastic_export.layers.mamba2 import MAMBA2
from elastic_export.layers.mlp import MLP
from elastic_export.passes import budget_passes, run_passes
from elastic_export.reference import budget_masks
from elastic_export.trace.trace import trace_parent
from elastic_export.verify.plan import make_plan
from elastic_export.verify.verify import Subject, Verification, make_oracle, verify_budgets
from elastic_export.weights.recipe import shared_recipe
from elastic_runtime.ort.weight_source import Array, Recipe, WeightSource

#: By layer kind: the weight that is handed over wrongly, its axis, and how many places a head or channel takes on it.
_FAULTS = {
    MAMBA2: ("mixer.A_log", 0, 1),
    MLP: ("mixer.down_proj.weight", 1, 1),
    ATTENTION: ("mixer.v_proj.weight", 0, 128),
}


class Exchanged:
    """A source that exchanges the first two things along an axis of some weights; by name: (axis, places of one)."""

    def __init__(self, source: WeightSource, faults: Mapping[str, tuple[int, int]]) -> None:
        self._source, self._faults = source, faults
        self.names, self.shape, self.rows = source.names, source.shape, source.rows

    def load(self, name: str) -> Array:
        """See `WeightSource`."""
        array = self._source.load(name)
        if name in self._faults:
            axis, size = self._faults[name]
            order = np.arange(array.shape[axis])
            order[: 2 * size] = np.roll(order[: 2 * size], size)
            array = np.take(array, order, axis=axis)
        return array


def main() -> None:
    """Emit, exchange, verify, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--budget", help="by default the first of the budget file")
    arguments = parser.parse_args()
    checkpoint = Checkpoint.open(arguments.checkpoint)
    [budget, *_] = [b for b in checkpoint.budgets.values() if arguments.budget in (None, b.name)]
    with tempfile.TemporaryDirectory() as folder:
        emitted = _emitted(checkpoint, budget, Path(folder) / "model.onnx")
        chosen = _chosen(checkpoint.architecture, budget)
        recipe = shared_recipe(emitted, checkpoint, lambda shard: shard.name)
        source = Exchanged(Recipe(recipe, checkpoint.path), _inputs(checkpoint, emitted, chosen))
        plan = make_plan(vocab=checkpoint.architecture.vocab_size, max_tokens=256, max_context=16384)
        start = time.monotonic()
        [found] = verify_budgets(make_oracle(checkpoint, "bf16"), [Subject(budget, emitted, source, plan)])
    print(f"{arguments.checkpoint.name}, budget {budget.name}: {time.monotonic() - start:.0f} s")
    sys.exit(not _printed(found, chosen, checkpoint.architecture))


def _emitted(checkpoint: Checkpoint, budget: Budget, path: Path) -> EmittedModel:
    arch, dtype = checkpoint.architecture, DTYPES["bf16"].ir
    graph = clone_with_facts(trace_parent(arch, checkpoint.prefix, every_token=False))
    masks = {name: mask.numpy() for name, mask in budget_masks(arch, budget).items()}
    run_passes(graph, budget_passes(masks, dtype, dict.fromkeys(facts_of(graph).tensors(), dtype)))
    return emit_model(graph, budget.architecture(arch), path, precision="bf16")


def _chosen(arch: Architecture, budget: Budget) -> dict[int, LayerKind]:
    """The faulty layers, by index their kind."""
    found, kept = dict[int, LayerKind](), budget.kept_layers(arch)
    for kind in _FAULTS:
        layers = [index for index, layer, _ in arch.layers() if layer is kind and index in kept]
        found |= dict.fromkeys((layers[0], layers[len(layers) // 2], layers[-1]), kind)
    return found


def _inputs(
    checkpoint: Checkpoint, emitted: EmittedModel, chosen: Mapping[int, LayerKind]
) -> dict[str, tuple[int, int]]:
    """By the file's input what is exchanged in it."""
    wanted = {
        f"{checkpoint.prefix}.layers.{index}.{_FAULTS[kind][0]}": _FAULTS[kind][1:] for index, kind in chosen.items()
    }
    found = {
        name: wanted[part.tensor]
        for name, weight in emitted.weight_sources.items()
        for part in weight.parts
        if part.tensor in wanted
    }
    if len(found) != len(chosen):
        sys.exit(f"{len(chosen)} faults were to go into as many inputs, and there are {len(found)} for them")
    return found


def _printed(found: Verification, chosen: Mapping[int, LayerKind], arch: Architecture) -> bool:
    """Whether each fault was found in its layer's branch, and nothing of another layer, nor the logits."""
    exact, rounded, _ = found.checks
    places = {f"{state.kind}.{ordinal}": index for index, kind, ordinal in arch.layers() for state in kind.states}
    places |= {f"{what}.{index}": index for index, _, _ in arch.layers() for what in ("branch", "residual")}
    blamed = {places[d.tensor]: d for d in rounded.failures if d.tensor.startswith("branch.")}
    others = [d.tensor for d in rounded.failures if places.get(d.tensor) not in chosen]
    for index, kind in sorted(chosen.items()):
        said = f"branch off by {blamed[index].error:.2e}" if index in blamed else "NOT FOUND"
        print(f"  layer {index:2} {kind.called:10} {_FAULTS[kind][0]:24} {said}")
    print(f"  blamed besides: {others}")
    print(f"  end to end in float32: {len(exact.failures)} tensors outside, worst {exact.comparison.worst.tensor}")
    return blamed.keys() == chosen.keys() and not others


if __name__ == "__main__":
    main()
