"""Sizes as they are asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_export.plan.eight_bits import check_even
from elastic_export.propose.grid import Grid
from elastic_export.propose.target import (
    Target,
    check_targets,
    parameter_measure,
    parse_count,
    parse_targets,
    vram_measure,
)
from elastic_runtime.errors import InputError
from elastic_runtime.fit.sizes import parse_size
from synthetic import NANO_12B


def test_the_largest_comes_first_and_keeps_its_name() -> None:
    assert parse_targets("--params", "6B, 9.5b", None) == [Target("9.5b", 9_500_000_000), Target("6b", 6_000_000_000)]
    assert parse_targets("--params", "310M", "tiny") == [Target("tiny", 310_000_000)]
    assert parse_targets("--vram", "12GiB,16GiB", "a,b") == [Target("b", 16 << 30), Target("a", 12 << 30)]


@pytest.mark.parametrize(
    ("option", "text", "names", "message"),
    [
        ("--params", "", None, "--params: expected a count such as 9B or 310M, found the text ''"),
        ("--params", "9B,", None, "found the text ''"),
        ("--params", "-9B", None, "expected a count such as 9B"),
        ("--params", "9", None, "expected a count such as 9B"),
        ("--params", "nanB", None, "expected a count such as 9B"),
        pytest.param("--params", "9" * 400 + "B", None, "expected a count such as 9B", id="more than a float holds"),
        ("--params", "0B", None, "expected a count such as 9B"),
        ("--vram", "16 bytes", None, "--vram: expected a size such as 12GiB"),
        ("--vram", "-1GiB", None, "--vram: expected a size such as 12GiB"),
        ("--params", "9B,9B", None, "--params: expected sizes that are more than 2% apart, found 9b and 9b"),
        ("--params", "9B,9000M", None, "--params: expected sizes that are more than 2% apart, found 9b and 9000m"),
        ("--params", "9B,8.9B", None, "found 9b and 8.9b, which one budget would hit"),
        ("--params", "9B,6B", "a", "--names: expected 2 names, one a target, found 1"),
        ("--params", "9B,6B", "a,A", "--names: expected every name once, found a, A"),
        ("--params", "9B,6B", "all,b", "--names, budget name: expected a name the bundle does not use, found 'all'"),
    ],
)
def test_what_is_no_size_is_refused(option: str, text: str, names: str | None, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_targets(option, text, names)
    assert message in str(error.value)
    assert error.value.todo


def test_a_count_is_exact() -> None:
    assert parse_count("12.31B") == 12_310_000_000
    assert parse_count("1k") == 1000


@given(st.integers(1, 10**12))
def test_a_count_that_is_told_can_be_asked_for(count: int) -> None:
    """So closely that a size 1% above it, which is advised, is one for which a budget of that count will do."""
    told = parse_count(parameter_measure().text(count))
    assert Target("b", told + told // 100).least <= count <= told + told / 100
    assert told == count or count >= 10**6


@given(st.integers(1 << 20, 1 << 40))
def test_a_size_of_memory_that_is_told_can_be_asked_for(size: int) -> None:
    told = parse_size(vram_measure("bf16", 16384).text(size), "it")
    assert Target("b", told + told // 100).least <= size <= told + told / 100


def test_a_size_out_of_reach_says_the_range() -> None:
    grid = Grid(NANO_12B, "bf16")
    grid.order = tuple(range(62))
    smallest = grid.architecture(grid.smallest)
    check_targets(parse_targets("--params", "12.31001B,1B", None)[1:], parameter_measure(), smallest, NANO_12B)
    for text in ("13B", "0.5B"):
        with pytest.raises(InputError) as error:
            check_targets(parse_targets("--params", text, None), parameter_measure(), smallest, NANO_12B)
        assert error.value.subject == f"--params {text.lower()}"
        assert error.value.expected == "from 621.45M, the smallest that is proposed, to 12.31B, the parent"
    measure = vram_measure("bf16", 16384)
    with pytest.raises(
        InputError, match=r"from 2\.0\d GiB, the smallest that is proposed, to 24\.\d\d GiB, the parent"
    ):
        check_targets(parse_targets("--vram", "1GiB", None), measure, smallest, NANO_12B)


def test_vram_is_that_of_the_precision_and_context() -> None:
    narrow, wide = (vram_measure(precision, 16384).of(NANO_12B) for precision in ("bf16", "fp32"))
    assert wide > 1.9 * narrow
    assert narrow > vram_measure("bf16", 8192).of(NANO_12B)


def test_vram_in_eight_bits_is_what_an_export_of_the_budget_reckons() -> None:
    """The figures that tests/cli/test_dry_run.py has worked out by hand for the parent."""
    assert vram_measure("bf16", 16384, "int8").of(NANO_12B) == 13_749_224_102
    odd = replace(NANO_12B, vocab_size=131071)
    with pytest.raises(InputError, match="--quantize int8: expected --precision bf16, found fp16, in which"):
        check_even(NANO_12B, "fp16")
    with pytest.raises(InputError, match=r"even matrices alone, .*, found odd ones, lm_head\.weight the first"):
        check_even(odd, "bf16")
