"""The lengths of an engine's calls: few, never past the end of a context, and little padding where it costs time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_runtime.tensorrt.call_size import SIZES, call_size


@pytest.mark.parametrize(
    ("wanted", "most", "size"),
    [
        (1, 5000, 1),
        (2, 5000, 16),
        (16, 5000, 16),
        (17, 5000, 64),
        (65, 5000, 256),  # reading the weights takes as long
        (257, 5000, 256),  # three quarters of 1024 would be padding
        (511, 5000, 256),
        (512, 5000, 1024),
        (5000, 5000, 1024),
        (300, 900, 256),
        (12, 13, 1),  # no room for 16
        (40, 63, 16),
    ],
)
def test_the_length_of_a_call(wanted: int, most: int, size: int) -> None:
    assert call_size(wanted, most, 1024) == size


def test_an_engine_of_another_length_has_that_one_too() -> None:
    assert [call_size(n, 5000, 100) for n in (1, 10, 60, 70, 300)] == [1, 16, 64, 100, 100]
    assert [call_size(n, 5000, 4) for n in (1, 2, 4, 9)] == [1, 4, 4, 4]
    assert [call_size(n, 5000, 1) for n in (1, 7)] == [1, 1]
    assert [call_size(n, 5000, 2048) for n in (1023, 1025, 1030, 2000, 9000)] == [1024, 2048, 2048, 2048, 2048]


@given(wanted=st.integers(1, 6000), spare=st.integers(0, 3000), max_tokens=st.integers(1, 4096))
def test_a_prompt_is_fed_in_a_few_lengths_and_never_past_the_end(wanted: int, spare: int, max_tokens: int) -> None:
    calls, left, most = [], wanted, wanted + spare
    while left:
        size = call_size(left, most, max_tokens)
        assert 1 <= size <= most
        calls.append(size)
        left, most = left - min(left, size), most - min(left, size)
    assert set(calls) <= {*SIZES, max_tokens}
    assert sum(calls) <= max(256, 2 * wanted)
    if spare >= max(256, max_tokens):  # near its end a context may need single steps
        assert len(calls) <= wanted // max_tokens + 5
