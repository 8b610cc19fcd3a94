"""Totals worked out by hand: weights + states + scratch + reserve, then the caches at 4k, 8k and 16k.

12b 24620002304 + 148865024 + 207000000 + 644245094 = 25620112422; + 100663296, 201326592, 402653184
9b  17776454656 + 143548416 + 190000000 + 644245094 = 18754248166; + 67108864, 134217728, 268435456
4b   7947113664 +  83801088 + 150000000 + 644245094 =  8825159846; + 67108864, 134217728, 268435456
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from elastic_runtime.errors import InputError
from elastic_runtime.fit.choose import choose
from elastic_runtime.format.manifest import BudgetEntry

GIB = 1 << 30
Budgets = tuple[BudgetEntry, ...]
TOTALS = {
    ("12b", 4096): 25_720_775_718,
    ("12b", 8192): 25_821_439_014,
    ("12b", 16384): 26_022_765_606,
    ("9b", 4096): 18_821_357_030,
    ("9b", 8192): 18_888_465_894,
    ("9b", 16384): 19_022_683_622,
    ("4b", 4096): 8_892_268_710,
    ("4b", 8192): 8_959_377_574,
    ("4b", 16384): 9_093_595_302,
}
TABLE = {
    8: (None, None, None),
    12: ("4b", "4b", "4b"),
    16: ("4b", "4b", "4b"),
    24: ("12b", "9b", "9b"),
    32: ("12b", "12b", "12b"),
}


def test_the_totals(budgets: Budgets) -> None:
    for context in (4096, 8192, 16384):
        choice = choose(budgets, vram=GIB, context=context)
        assert {(r.budget.name, context): r.need.total for r in choice.reckonings if r.need} == {
            key: total for key, total in TOTALS.items() if key[1] == context
        }


@pytest.mark.parametrize("memory", TABLE)
def test_the_table(budgets: Budgets, memory: int) -> None:
    chosen = [choose(budgets, vram=memory * GIB, context=c).budget for c in (4096, 8192, 16384)]
    assert tuple(b and b.name for b in chosen) == TABLE[memory]


def test_a_byte_decides(budgets: Budgets) -> None:
    for vram, name in ((TOTALS["9b", 4096], "9b"), (TOTALS["9b", 4096] - 1, "4b")):
        assert choose(budgets, vram=vram, context=4096).budget == next(b for b in budgets if b.name == name)


def test_the_smallest_engine_that_suffices_serves_and_its_whole_cache_counts(budgets: Budgets) -> None:
    choice = choose(budgets, vram=32 * GIB, context=5000)
    assert choice.engine is not None
    assert choice.engine.max_context == 8192
    assert choice.chosen is not None
    assert choice.chosen.need is not None
    assert choice.chosen.need.total == TOTALS["12b", 8192]


def test_without_a_context_the_largest_engine_that_fits_serves(budgets: Budgets) -> None:
    assert choose(budgets, vram=32 * GIB).engine == budgets[-1].engines[-1]
    between = choose(budgets, vram=TOTALS["12b", 8192])
    assert between.engine is not None
    assert (between.engine.file, between.context) == ("12b/rtx5090.8192.engine", 1)
    assert between.explain().startswith("24.0 GiB, 1 tokens or more x 1:\n")
    short = choose(budgets, vram=TOTALS["12b", 4096] - 1)
    assert short.reckonings[0].need is not None
    assert short.reckonings[0].need.total == TOTALS["12b", 4096]  # what it is short of is the least that would do
    assert short.engine == budgets[1].engines[-1]


@pytest.mark.parametrize("context", [None, 16384])
def test_of_engines_side_by_side_the_plugin_one_serves_whatever_its_activation(
    budgets: Budgets, context: int | None
) -> None:
    native = budgets[-1].engines[-1]
    plugin = replace(native, ops="plugin", file="plugin.engine", activation=native.activation + 1)
    for engines in ((native, plugin), (plugin, native)):
        budget = replace(budgets[-1], engines=engines)
        assert choose((budget,), vram=32 * GIB, context=context).engine == plugin
        assert choose((budget,), vram=TOTALS["12b", 16384], context=context).engine == native  # a byte too few
        (short,) = choose((budget,), vram=GIB, context=context).reckonings
        assert short.engine == native  # the least that would do


def test_a_transcript_asks_for_its_room_besides(budgets: Budgets) -> None:
    contexts = {
        (context, at_least): choose(budgets, vram=32 * GIB, context=context, at_least=at_least).engine.max_context  # type: ignore[union-attr]
        for context in (None, 100, 9000)
        for at_least in (1, 5000)
    }
    assert contexts == {
        (None, 1): 16384,
        (None, 5000): 16384,
        (100, 1): 4096,
        (100, 5000): 8192,
        (9000, 1): 16384,
        (9000, 5000): 16384,
    }
    assert choose(budgets, vram=TOTALS["12b", 4096], at_least=5000).budget == budgets[1]


def test_the_order_of_the_budgets_does_not_matter(budgets: Budgets) -> None:
    assert choose(reversed(budgets), vram=32 * GIB, context=1) == choose(budgets, vram=32 * GIB, context=1)


def test_explain(budgets: Budgets) -> None:
    without = replace(budgets[0], engines=())
    assert choose([without, *budgets[1:]], vram=24 * GIB, context=8192, batch=1).explain() == (
        "24.0 GiB, 8192 tokens x 1:\n"
        "  12b: weights 22.9 + states 0.1 + caches 0.2 at 8192 tokens x 1 + scratch 0.2 (estimated) + reserve 0.6"
        " = 24.0 GiB: does not fit, 0.05 GiB short\n"
        "  9b: weights 16.6 + states 0.1 + caches 0.1 at 8192 tokens x 1 + scratch 0.2 (estimated) + reserve 0.6"
        " = 17.6 GiB: chosen\n"
        "  4b: no engine"
    )


def test_what_no_engine_can_do_is_said(budgets: Budgets) -> None:
    for arguments in ({"context": 20000}, {"context": 1, "batch": 5}):
        choice = choose(budgets, vram=32 * GIB, **arguments)
        assert choice.budget is None
        assert choice.reckonings[0].refusal == "no engine for this: the largest has 16384 tokens x 4"


def test_the_card_decides_among_engines(budgets: Budgets) -> None:
    assert choose(budgets, vram=32 * GIB, context=1, compute_capability="12.0").budget is not None
    choice = choose(budgets, vram=32 * GIB, context=1, compute_capability="8.9")
    assert choice.chosen is None
    assert "no engine for compute capability 8.9" in choice.explain()


@pytest.mark.parametrize("subject", ["vram", "context", "batch"])
def test_numbers_beyond_all_reckoning(budgets: Budgets, subject: str) -> None:
    with pytest.raises(InputError, match=f"{subject}: expected at most 9007199254740991, found more"):
        choose(budgets, **{"vram": GIB, "context": 1, subject: 10**400})


@pytest.mark.parametrize("change", [{"vram": 0}, {"context": 0}, {"batch": 0}, {"vram": -1}])
def test_absurd_requests(budgets: Budgets, change: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected at least 1"):
        choose(budgets, **{"vram": GIB, "context": 1, **change})
