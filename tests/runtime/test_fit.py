"""Figures worked out by hand from the table of the family.

12B, one Mamba layer: conv state 3 * (10240 + 2048) * 2 = 73728, SSM state 128 * 80 * 128 * 4 = 5242880; times 28 layers
148865024. KV 6 layers * 2 * 8 * 128 * 2 = 24576 a token. Reserve 0.6 * 2^30 = 644245094.
4B: conv 3 * (7680 + 2048) * 2 = 58368, SSM 96 * 80 * 128 * 4 = 3932160; times 21 = 83801088. KV 4 * 4096 = 16384.
"""

from __future__ import annotations

import pytest

from elastic_export.bundle.describe import budget_size
from elastic_export.checkpoint.architecture import Architecture
from elastic_runtime.errors import InputError
from elastic_runtime.fit import (
    RESERVE_BYTES,
    Activation,
    BudgetSize,
    bandwidth_floor,
    estimate_activation,
    unfit,
    vram_needed,
)
from elastic_runtime.fit_table import fit_table, parameters, short
from elastic_runtime.targets import load_targets, select_targets


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


def test_weights_given_in_bytes_are_taken_as_they_are(shapes: dict[str, Architecture]) -> None:
    assert budget_size("4b", shapes["4b"], "fp16", weight_bytes=5).weight_bytes == 5
    assert budget_size("4b", shapes["4b"], "fp32").weight_bytes == 15_894_227_328
    assert budget_size("4b", shapes["4b"], "fp32").state_bytes == 21 * (3 * 9728 * 4 + 3_932_160)


def test_the_estimate_bounds_what_the_12b_was_measured_to_take() -> None:
    decode, prefill = (estimate_activation(22656, max_tokens=tokens) for tokens in (1, 256))
    assert (decode.bytes, prefill.bytes) == (25_724_992, 210_597_952)
    assert 25_000_000 <= decode.bytes < 1.05 * 25_000_000
    assert 207_000_000 <= prefill.bytes < 1.05 * 207_000_000
    assert not prefill.measured


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


def test_the_table(shapes: dict[str, Architecture]) -> None:
    sizes = [size_of(name, shapes) for name in shapes]
    text = fit_table(sizes, select_targets("rtx5080"), contexts=[16384], precision="bf16")
    assert text == (
        "budget  params  weights   VRAM@16k   rtx5080 (15.9 GiB, 14.9 usable)\n"
        "12b     12.31B  22.9 GiB  24.2 GiB   no\n"
        "9b       8.89B  16.6 GiB  17.7 GiB   no\n"
        "4b       3.97B   7.4 GiB   8.5 GiB   yes\n"
        "12b, 9b do not fit rtx5080 in bf16 at 16384 tokens: built all the same, never chosen there."
    )


def test_the_table_of_several_contexts_and_cards(shapes: dict[str, Architecture]) -> None:
    sizes = [size_of("4b", shapes)]
    lines = fit_table(
        sizes, select_targets("rtx4070,rtx"), contexts=[8192, 262144], batch=2, precision="bf16"
    ).splitlines()
    assert lines == [
        "budget  params  weights  VRAM@8k  VRAM@256k   rtx4070 (12.0 GiB, 11.0 usable)   rtx (portable)",
        "4b       3.97B  7.4 GiB  8.6 GiB   16.4 GiB   to 8k                             -",
        "4b does not fit rtx4070 in bf16 at 262144 tokens x 2: built all the same, never chosen there.",
    ]


def test_short_forms() -> None:
    assert (short(16384), short(1000), parameters(412_345)) == ("16k", "1000", "0.41M")
