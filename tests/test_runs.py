"""Index runs of the exporter: the bands in which a tensor's rows are read."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from elastic_export.runs import bands_of, positions, runs_of

KEEPS = st.lists(st.booleans(), min_size=1, max_size=60).filter(any)


@given(KEEPS, st.integers(1, 30), st.integers(0, 10))
def test_bands_hold_every_index_once_and_keep_their_bounds(keep: list[bool], most: int, gap: int) -> None:
    runs = runs_of(np.array(keep))
    found, last = list[int](), None
    for first, band in bands_of(runs, most, gap):
        assert band[0][0] == 0
        assert sum(band[-1]) <= most
        assert all(later[0] - sum(earlier) <= gap for earlier, later in pairwise(band))
        indices = [first + int(index) for index in positions(band)]
        # Two neighbours that would have gone into one band within both bounds are in one.
        if last is not None:
            assert first - last[1] > gap or first + band[0][1] - last[0] > most
        last = first, first + sum(band[-1])
        found += indices
    assert found == [index for index, kept in enumerate(keep) if kept]


def test_a_band_ends_where_a_gap_is_too_wide_to_be_read_over() -> None:
    runs = ((0, 2), (3, 1), (8, 5))
    assert list(bands_of(runs, 100, 2)) == [(0, ((0, 2), (3, 1))), (8, ((0, 5),))]
    assert list(bands_of(runs, 3, 100)) == [(0, ((0, 2),)), (3, ((0, 1),)), (8, ((0, 3),)), (11, ((0, 2),))]
