"""Calls side by side give what they give one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from elastic_export.reference.call import Call
from elastic_export.reference.mixers import multiply
from elastic_export.reference.segments import Segments

EXACT = 1e-12  # float64: the same sums over other block sizes


@pytest.mark.parametrize("seed", range(6))
def test_segments_are_their_calls(seed: int, model_of: Callable[[int], Any], distance: Callable[..., float]) -> None:
    """Two rows of ragged lengths: states go on from call to call, and from row to row nothing does."""
    model = model_of(seed)
    reference, masks = model.reference(), model.masks()
    counts, follows = [5, 1, 3, 20, 2], [None, 0, 1, None, 3]
    streams = [torch.randn(1, count, model.arch.hidden_size).double() * masks["hidden"] for count in counts]
    for block in reference.body.layers:
        start, one_by_one, expected = model.state(1), list[Call](), list[Tensor]()
        for stream, count, before in zip(streams, counts, follows, strict=True):
            at = 0 if before is None else int(one_by_one[before].position) + counts[before]
            state = start if before is None else start | one_by_one[before].new_state
            one_by_one.append(Call(torch.tensor([at]), torch.tensor([count]), state, masks))
            expected.append(block(stream, one_by_one[-1]))
        calls = [Call(call.position, call.length, start, masks) for call in one_by_one]
        found = block(torch.cat(streams, dim=1), Segments(calls, follows))
        assert distance(found, torch.cat(expected, dim=1)) <= EXACT
        for mine, theirs in zip(calls, one_by_one, strict=True):
            assert mine.new_state.keys() == theirs.new_state.keys()
            for name, state in theirs.new_state.items():
                assert distance(mine.new_state[name], state) <= EXACT, name


def test_a_narrower_weight_is_converted_as_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elastic_export.reference.mixers._CONVERTED", 12)
    x, weight = torch.randn(3, 5).double(), torch.randn(7, 5)
    torch.testing.assert_close(multiply(x, weight), x @ weight.double().T, rtol=1e-14, atol=1e-14)
    assert multiply(x.float(), weight).dtype == torch.float32
