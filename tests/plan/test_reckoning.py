from __future__ import annotations

import numpy as np
import pytest

from closed_form import ports, state_entries
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.plan.reckoning import budget_size, fits, has_scalar_widths, widths
from elastic_runtime.fit.targets import load_targets
from elastic_runtime.format.budget_size import Activation
from family import SHAPES

PARENT = Architecture("M-*M", 256, 32, (64,), (8, 8), 4, 2, 16, 4, 4, 2, 8, 1e-5, (0.0, float("inf")))
SMALL = Budget("small", 24, (48,), (6, 4), 3, 2, (0,))


def indices(runs: tuple[tuple[int, int], ...]) -> list[int]:
    return [i for start, count in runs for i in range(start, start + count)]


def test_states_of_a_narrowed_model_name_the_parents_layers_and_channels() -> None:
    entries = {entry.name: entry for entry in state_entries(PARENT, SMALL)}
    assert [(e.name, e.parent_layer) for e in entries.values()] == [
        ("conv_state.0", 3),
        ("ssm_state.0", 3),
        ("key_cache.0", 2),
        ("value_cache.0", 2),
    ]
    # Two groups of four heads, two stay in each: heads 0, 1, 4, 5; three of four channels a head; B and C are 64 more.
    assert entries["ssm_state.0"].runs == (None, ((0, 2), (4, 2)), ((0, 3),), ((0, 16),))
    x = [head * 4 + p for head in (0, 1, 4, 5) for p in range(3)]
    assert indices(entries["conv_state.0"].runs[2]) == [*x, *range(32, 96)]
    assert entries["conv_state.0"].runs[:2] == (None, ((0, 3),))
    assert entries["key_cache.0"].runs == (None, ((0, 2),), None, ((0, 8),))


@pytest.mark.parametrize("budget", [SMALL, Budget.full(PARENT, "full")])
def test_runs_have_the_shapes_of_the_states(budget: Budget) -> None:
    model = budget.architecture(PARENT)
    inputs, outputs = ports(model, "bf16", "plugin")
    shapes = {port.name: port.shape for port in inputs}
    for entry in state_entries(PARENT, budget):
        for runs, size in zip(entry.runs, shapes[entry.name], strict=True):
            assert isinstance(size, str) if runs is None else len(indices(runs)) == size
    assert {p.name for p in outputs} == {
        "logits",
        *(e.name.replace(".", "_out.") for e in state_entries(PARENT, budget)),
    }


def test_the_io_table_pairs_states_with_their_alias_rule() -> None:
    _, native = ports(PARENT, "fp16", "native", every_token=True)
    _, plugin = ports(PARENT, "fp16", "plugin")
    assert native[0].shape == ("B", "T", 256)
    assert plugin[0].shape == ("B", 256)
    rules = {p.name: (p.input, n.alias, p.alias) for n, p in zip(native[1:], plugin[1:], strict=True)}
    assert rules["conv_state_out.0"] == ("conv_state.0", "must_not", "must_not")
    assert rules["ssm_state_out.1"] == ("ssm_state.1", "must_not", "must")
    assert rules["value_cache_out.0"] == ("value_cache.0", "must", "must")


def test_widths_and_whether_they_are_scalar() -> None:
    assert widths(PARENT).mamba_heads == (8, 8)
    assert has_scalar_widths(PARENT)
    assert not has_scalar_widths(Budget("s", 32, (64,), (6, 4), 4, 4, ()).architecture(PARENT))
    assert has_scalar_widths(Budget("s", 32, (64,), (6, 4), 4, 4, (0,)).architecture(PARENT))


def test_fit_of_an_engine_and_of_a_portable_one() -> None:
    size = budget_size("full", PARENT, "bf16", activation=Activation(1_000_000, measured=True))
    assert size.weight_bytes == 2 * sum(int(np.prod(s)) for s in PARENT.tensor_shapes().values())
    entry = fits(size, load_targets()["rtx5080"], context=1000, batch=2)
    assert entry.caches == 2 * 1000 * 2 * 1 * 2 * 8 * 2
    assert (entry.usable, entry.enough, entry.activation_measured) == (15279 << 20, True, True)
    portable = fits(size, load_targets()["rtx"], context=1000, batch=2)
    assert (portable.usable, portable.enough, portable.total) == (None, None, entry.total)


def test_weights_given_in_bytes_are_taken_as_they_are() -> None:
    assert budget_size("4b", SHAPES["4b"], "fp16", weight_bytes=5).weight_bytes == 5
    assert budget_size("4b", SHAPES["4b"], "fp32").weight_bytes == 15_894_227_328
    assert budget_size("4b", SHAPES["4b"], "fp32").state_bytes == 21 * (3 * 9728 * 4 + 3_932_160)
