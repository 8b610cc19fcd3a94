from __future__ import annotations

import pytest

from elastic_runtime.errors import InputError
from elastic_runtime.fit.targets import load_targets, select_targets


def test_the_cards_of_the_first_release() -> None:
    cards = load_targets()
    assert {"rtx5090", "rtx5080", "rtx4090", "rtx3090", "rtx"} <= set(cards)
    expected = {
        "rtx5090": (("12.0",), 31.84, 1792),
        "rtx5080": (("12.0",), 15.92, 960),
        "rtx4090": (("8.9",), 23.99, 1008),
        "rtx3090": (("8.6",), 24.0, 936),
    }
    for name, (capabilities, gibibytes, bandwidth) in expected.items():
        card = cards[name]
        assert card.vram_bytes is not None
        assert card.compute_capabilities == capabilities
        assert card.vram_bytes / 2**30 == pytest.approx(gibibytes, abs=0.01)
        assert card.bandwidth_gbs == bandwidth


def test_every_target_is_complete_and_plausible() -> None:
    for name, card in load_targets().items():
        assert card.source
        assert all(c in ("7.5", "8.6", "8.9", "12.0") for c in card.compute_capabilities), name
        if card.vram_mib is None or card.usable_mib is None or card.bandwidth_gbs is None:
            assert (card.vram_mib, card.usable_mib, card.bandwidth_gbs, name) == (None, None, None, "rtx")
        else:
            assert 8000 < card.usable_mib == card.vram_mib - 1024
            assert 200 < card.bandwidth_gbs < 2000
            assert len(card.compute_capabilities) == 1


def test_requests() -> None:
    assert [t.name for t in select_targets("rtx5080, rtx4090,rtx5080")] == ["rtx5080", "rtx4090"]
    assert [t.name for t in select_targets(["rtx"])] == ["rtx"]


def test_an_unknown_target_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"^target 'RTX5080x': .*found no such target\. Try rtx5080 or ") as error:
        select_targets("RTX5080x")
    assert error.value.exit_code == 2
    with pytest.raises(InputError, match="`elastic-export targets` lists them"):
        select_targets("h200")
    with pytest.raises(InputError, match=r"expected at least one of .*, found none"):
        select_targets(" ,")


def test_no_bf16_before_compute_capability_8() -> None:
    card = load_targets()["rtx"]
    assert card.capabilities("bf16") == ("8.6", "8.9", "12.0")
    assert card.capabilities("fp16") == ("7.5", "8.6", "8.9", "12.0")
    turing = type(card)("rtx2080", "", ("7.5",), None, None, None, "")
    with pytest.raises(InputError, match=r"target rtx2080: expected compute capability 8\.0 .* Use --precision fp16"):
        turing.capabilities("bf16")
