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
        assert all(c in ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1") for c in card.compute_capabilities), name
        if card.vram_mib is None or card.usable_mib is None or card.bandwidth_gbs is None:
            assert (card.vram_mib, card.usable_mib, card.bandwidth_gbs, name) == (None, None, None, "rtx")
        else:
            others = 16384 if name == "dgx-spark" else 1024  # its memory is the whole system's
            assert 7000 < card.usable_mib == card.vram_mib - others
            assert 200 < card.bandwidth_gbs < 2000
            assert len(card.compute_capabilities) == 1


def test_requests() -> None:
    assert [t.name for t in select_targets("rtx5080, rtx4090,rtx5080")] == ["rtx5080", "rtx4090"]
    assert [t.name for t in select_targets(["rtx"])] == ["rtx"]


def test_a_card_is_described_where_no_name_has_it() -> None:
    (card,) = select_targets("sm89:24GiB:1008GBps")
    assert (card.name, card.compute_capabilities) == ("sm89-24gib-1008gbps", ("8.9",))
    assert (card.vram_mib, card.usable_mib, card.bandwidth_gbs) == (24576, 23552, 1008)
    known = load_targets()["rtx4090"]
    assert card.capabilities("bf16") == known.capabilities("bf16")  # so that both share one engine
    (blackwell,) = select_targets("SM121:119.5gib")
    assert (blackwell.name, blackwell.compute_capabilities) == ("sm121-119.5gib", ("12.1",))
    assert blackwell.bandwidth_gbs is None
    names = [target.name for target in select_targets("rtx5080,sm120:16GB:960GBps")]
    assert names == ["rtx5080", "sm120-16gb-960gbps"]


@pytest.mark.parametrize(
    "text", ["sm89", "sm89:24", "sm89:24GiB:1008", "sm9:24GiB", "sm89:24GiB:1GBps:2", "sm89:-1GiB"]
)
def test_a_description_that_says_too_little_is_refused(text: str) -> None:
    with pytest.raises(
        InputError, match=r"expected compute capability, memory and bandwidth, as in sm89:24GiB:1008GBps"
    ):
        select_targets(text)


def test_a_description_without_room_for_anything_is_refused() -> None:
    with pytest.raises(InputError, match="expected more memory than the 1024 MiB of driver and desktop, found 1GiB"):
        select_targets("sm89:1GiB")


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
    assert card.capabilities("bf16") == ("8.0", "8.6", "8.9", "12.0", "12.1")
    assert card.capabilities("fp16") == ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
    turing = type(card)("rtx2080", "", ("7.5",), None, None, None, "")
    with pytest.raises(InputError, match=r"target rtx2080: expected compute capability 8\.0 .* Use --precision fp16"):
        turing.capabilities("bf16")
