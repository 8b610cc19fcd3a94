"""The table that `--explain` and an export print, of the family's published shapes."""

from __future__ import annotations

from elastic_export.plan.fit_table import fit_table, parameters, short
from elastic_export.plan.reckoning import budget_size
from elastic_runtime.fit.targets import select_targets
from elastic_runtime.format.budget_size import Activation, BudgetSize
from family import SHAPES


def size_of(name: str) -> BudgetSize:
    return budget_size(name, SHAPES[name], "bf16", activation=Activation(207_000_000))


def test_the_table() -> None:
    sizes = [size_of(name) for name in SHAPES]
    text = fit_table(sizes, select_targets("rtx5080"), contexts=[16384], precision="bf16")
    assert text == (
        "budget  params  weights   VRAM@16k   rtx5080 (15.9 GiB, 14.9 usable)\n"
        "12b     12.31B  22.9 GiB  24.2 GiB   no\n"
        "9b       8.89B  16.6 GiB  17.7 GiB   no\n"
        "4b       3.97B   7.4 GiB   8.5 GiB   yes\n"
        "12b, 9b do not fit rtx5080 in bf16 at 16384 tokens: never chosen there."
    )


def test_the_table_of_several_contexts_and_cards() -> None:
    sizes = [size_of("4b")]
    lines = fit_table(
        sizes, select_targets("rtx4070,rtx"), contexts=[8192, 262144], batch=2, precision="bf16"
    ).splitlines()
    assert lines == [
        "budget  params  weights  VRAM@8k  VRAM@256k   rtx4070 (12.0 GiB, 11.0 usable)   rtx (portable)",
        "4b       3.97B  7.4 GiB  8.6 GiB   16.4 GiB   to 8k                             -",
        "4b does not fit rtx4070 in bf16 at 262144 tokens x 2: never chosen there.",
    ]


def test_short_forms() -> None:
    assert (short(16384), short(1000), parameters(412_345)) == ("16k", "1000", "0.41M")
