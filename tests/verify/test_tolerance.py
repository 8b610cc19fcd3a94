"""One table, complete, with reasons."""

from __future__ import annotations

import pytest

from elastic_export.verify.compare import Comparison, Difference
from elastic_export.verify.tolerance import TOLERANCES, Tolerance
from elastic_export.verify.verify import Check


def test_the_table_is_complete() -> None:
    assert set(TOLERANCES) == {"float32", "rounded", "attributes"}
    assert all(set(by_precision) == {"bf16", "fp16", "fp32"} for by_precision in TOLERANCES.values())
    for row in TOLERANCES.values():
        for bound in row.values():
            assert len(bound.reason) > 10
            assert 0 < bound.error < 1e-2
            assert bound.state is None or 0 < bound.state < bound.error


def test_what_the_issue_demands_is_not_widened() -> None:
    assert {bound.error for bound in TOLERANCES["float32"].values()} == {1e-4}


@pytest.mark.parametrize(
    ("tensor", "error", "share", "holds"),
    [
        ("logits", 1e-3, 1.0, True),
        ("logits", 1.1e-3, 0.0, False),
        ("logits", float("nan"), 0.0, False),
        ("logits", float("inf"), 0.0, False),
        ("branch.3", 1e-3, 0.2, True),
        ("branch.3", 0.0, 0.3, False),
        ("branch.3", 0.0, float("nan"), False),
        ("residual.3", 0.0, 0.3, True),
        ("ssm_state.0", 1e-4, 1.0, True),
        ("ssm_state.0", 2e-4, 1.0, False),
        ("value_cache.1", 2e-4, 0.0, False),
    ],
)
def test_bounds_by_tensor(tensor: str, error: float, share: float, holds: bool) -> None:
    found = Comparison((Difference("other", 0.0, 0.0, 0, 0.0), Difference(tensor, error, 0.0, 0, share)), 1.0)
    check = Check("a test", Tolerance(1e-3, "a test", share=0.2, state=1e-4), found)
    assert check.passed is holds
    assert [d.tensor for d in check.failures] == ([] if holds else [tensor])
