"""Figures worked out by hand from the table of the family.

12B, one Mamba layer: conv state 3 * (10240 + 2048) * 2 = 73728, SSM state 128 * 80 * 128 * 4 = 5242880; times 28 layers
148865024. KV 6 layers * 2 * 8 * 128 * 2 = 24576 a token. Reserve 0.6 * 2^30 = 644245094.
4B: conv 3 * (7680 + 2048) * 2 = 58368, SSM 96 * 80 * 128 * 4 = 3932160; times 21 = 83801088. KV 4 * 4096 = 16384.
"""

from __future__ import annotations

import pytest

from elastic_export.layers.architecture import Architecture
from elastic_export.plan.reckoning import budget_size
from elastic_runtime.errors import InputError
from elastic_runtime.fit.targets import load_targets
from elastic_runtime.fit.vram import (
    RESERVE_BYTES,
    bandwidth_floor,
    unfit,
    vram_needed,
)
from elastic_runtime.format.budget_size import Activation, BudgetSize


def size_of(name: str, shapes: dict[str, Architecture], activation: int = 207_000_000) -> BudgetSize:
    return budget_size(name, shapes[name], "bf16", activation=Activation(activation))


def test_the_12b_at_16k(shapes: dict[str, Architecture]) -> None:
    need = vram_needed(size_of("12b", shapes), context=16384)
    assert need.weights == 24_620_002_304
    assert need.states == 148_865_024
    assert need.caches == 402_653_184
    assert need.reserve == RESERVE_BYTES == 644_245_094
    assert need.total == 26_022_765_606
    assert need.text() == (
        "weights 22.9 + states 0.1 + caches 0.4 at 16384 tokens x 1 + scratch 0.2 (estimated) + reserve 0.6 = 24.2 GiB"
    )


def test_the_9b_with_a_batch_of_four_at_8k(shapes: dict[str, Architecture]) -> None:
    need = vram_needed(size_of("9b", shapes, 190_000_000), context=8192, batch=4)
    assert need.weights == 17_776_454_656
    assert need.states == 574_193_664
    assert need.caches == 536_870_912
    assert need.total == 19_721_764_326


def test_the_4b_at_128k_measured(shapes: dict[str, Architecture]) -> None:
    size = budget_size("4b", shapes["4b"], "bf16", activation=Activation(150_000_000, measured=True))
    need = vram_needed(size, context=131072)
    assert (need.states, need.caches, need.total) == (83_801_088, 2_147_483_648, 10_972_643_494)
    assert "scratch 0.1 (measured)" in need.text()


def test_an_estimate_grows_with_the_context(shapes: dict[str, Architecture]) -> None:
    size = budget_size("12b", shapes["12b"], "bf16", max_tokens=256, ops="native")
    assert vram_needed(size, context=8192).activation == 266_565_696
    assert vram_needed(size, context=16384).activation == 438_532_160
    # Calls of 1024 tokens: 25 MB + 278,396,928 + 22,528 x context, or what native mixers take.
    usual = budget_size("12b", shapes["12b"], "bf16", ops="native")
    assert vram_needed(usual, context=16384).activation == 683_505_728
    assert vram_needed(usual, context=24448).activation == 854_161_472
    plugin = budget_size("12b", shapes["12b"], "bf16")
    assert {vram_needed(plugin, context=context).activation for context in (8192, 131072)} == {233_797_696}
    measured = size_of("12b", shapes)
    assert {vram_needed(measured, context=context).activation for context in (8192, 16384)} == {207_000_000}


@pytest.mark.parametrize(("context", "batch"), [(0, 1), (-1, 1), (1, 0)])
def test_nothing_is_reckoned_for_no_tokens_or_rows(shapes: dict[str, Architecture], context: int, batch: int) -> None:
    with pytest.raises(InputError, match="expected at least 1"):
        vram_needed(size_of("4b", shapes), context=context, batch=batch)


def test_the_bandwidth_floor(shapes: dict[str, Architecture]) -> None:
    size, cards = size_of("4b", shapes), load_targets()
    # 960e9 / (7947113664 + 2 * 83801088 + 16384 * 8192) = 960e9 / 8248933568
    assert bandwidth_floor(size, cards["rtx5080"], context=8192) == pytest.approx(116.379, abs=1e-3)
    assert bandwidth_floor(size, cards["rtx"], context=8192) is None


def test_what_does_not_fit(shapes: dict[str, Architecture]) -> None:
    sizes, cards = [size_of(name, shapes) for name in shapes], load_targets()
    assert unfit(sizes, cards["rtx5080"], context=16384) == ["12b", "9b"]
    assert unfit(sizes, cards["rtx5090"], context=16384) == []
    assert unfit(sizes, cards["rtx"], context=16384) == []


def test_a_byte_decides(shapes: dict[str, Architecture]) -> None:
    card = load_targets()["rtx5080"]
    assert card.usable_bytes is not None
    rest = vram_needed(BudgetSize("x", 1, 0, 0, 0, Activation(0)), context=1).total
    exact = BudgetSize("x", 1, card.usable_bytes - rest, 0, 0, Activation(0))
    above = BudgetSize("x", 1, card.usable_bytes - rest + 1, 0, 0, Activation(0))
    assert (unfit([exact], card, context=1), unfit([above], card, context=1)) == ([], ["x"])
