"""Plans: always within the limits, always ragged, and as varied as the limits allow."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_export.verify.plan import Plan, make_plan, walk


@settings(max_examples=200, deadline=None)
@given(context=st.integers(1, 600), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_every_plan_keeps_the_limits(context: int, share: float, seed: int) -> None:
    max_tokens = max(1, round(context * share))
    plan = make_plan(vocab=11, max_tokens=max_tokens, max_context=context, seed=seed)
    position = np.zeros(2, np.int64)
    for step in plan.steps:
        assert 1 <= step.tokens <= max_tokens
        assert all(0 <= length <= step.tokens for length in step.length)
        assert max(step.length) >= 1
        assert position.max() + step.tokens <= plan.context <= context
        position += step.length
    assert any(len(set(step.length)) > 1 for step in plan.steps), "ragged"
    assert plan.ids.shape == (2, position.max())
    assert 0 <= plan.ids.min() <= plan.ids.max() < 11


def test_a_plan_with_room_has_everything() -> None:
    plan = make_plan(vocab=97, max_tokens=256, max_context=16384)
    tokens = [step.tokens for step in plan.steps]
    assert tokens[1] > 128, "three chunks of the scan, from states that are not zero"
    assert min(plan.steps[1].length) < 64, "a row that ends in the first chunk"
    assert any(step.tokens > 1 and 0 in step.length for step in plan.steps), "an idle row"
    assert any(step.tokens == 1 and 0 in step.length for step in plan.steps), "an idle row while decoding"
    assert tokens.count(1) >= 4
    assert plan.context < 400, "caches no larger than the run needs"


def test_smallest_plan() -> None:
    plan = make_plan(vocab=5, max_tokens=1, max_context=1)
    assert [(step.tokens, step.length) for step in plan.steps] == [(1, (1, 0))]


def test_walk_feeds_every_id_once_and_junk_behind() -> None:
    plan = make_plan(vocab=97, max_tokens=16, max_context=64)
    fed: list[list[int]] = [[], []]
    junk: list[int] = []
    at = np.zeros(2, np.int64)
    for ids, position, length in walk(plan, 97):
        np.testing.assert_array_equal(position, at)
        for row in range(2):
            fed[row] += ids[row, : length[row]].tolist()
            junk += ids[row, length[row] :].tolist()
        at = at + length
    for row in range(2):
        assert fed[row] == plan.ids[row, : at[row]].tolist()
        assert not plan.ids[row, at[row] :].any()
    assert len(set(junk)) > 3
    assert all(0 <= token < 97 for token in junk)


def test_the_seed_decides() -> None:
    def ids(seed: int) -> Plan:
        return make_plan(vocab=97, max_tokens=16, max_context=64, seed=seed)

    np.testing.assert_array_equal(ids(1).ids, ids(1).ids)
    assert not np.array_equal(ids(1).ids, ids(2).ids)
