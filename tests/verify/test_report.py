"""report.json: what was verified, how and with what numbers, in JSON that any reader takes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from elastic_export.verify.compare import Comparison, Difference
from elastic_export.verify.report import engines_not_run, no_verification, report_of
from elastic_export.verify.tolerance import TOLERANCES
from elastic_export.verify.verify import require_passed
from elastic_runtime.errors import BuildError


@pytest.fixture(scope="module")
def verified(compiled: Any) -> Any:
    model = compiled("bf16")
    return model.verify(model.emitted)


def strict(report: dict[str, Any]) -> Any:
    return json.loads(json.dumps(report, allow_nan=False))


def test_a_report_that_passed(verified: Any) -> None:
    skipped = engines_not_run(["tight/a.engine"])
    report = strict(report_of(verified, budget="tight", versions={"torch": "2"}, skipped=skipped))
    assert (report["schema"], report["budget"], report["passed"]) == ("elastic-report/1", "tight", True)
    assert [c["check"] for c in report["checks"]] == ["float32", "rounded", "attributes"]
    assert all(c["passed"] and c["against"] and c["measure"] and c["reason"] for c in report["checks"])
    assert report["checks"][1]["tolerance"] == {"error": 2e-3, "state_error": 1e-3, "branch_share": 0.25}
    assert set(report["checks"][0]["tensors"]["logits"]) == {"error", "bound", "max_abs", "call", "share"}
    assert report["run"]["batch"] == 2
    assert report["run"]["calls"][0] == {"tokens": 9, "length": [9, 7]}
    (engine,) = report["not_run"]
    assert engine["check"] == "tight/a.engine"
    assert "card" in engine["why"]


def test_a_report_without_verification() -> None:
    report = strict(report_of(None, budget="b", versions={}, skipped=[no_verification()]))
    assert (report["passed"], report["checks"], report["run"]) == (None, [], None)
    assert report["not_run"][0]["command"] == "export again without --no-verify"


def faulty(verified: Any, **figures: float) -> Any:
    wrong = replace(Difference("ssm_state.1", 0.0, 0.0, 3, 0.0), **figures)
    first = replace(verified.checks[0], comparison=Comparison((wrong,), 0.5))
    return replace(verified, checks=(first, *verified.checks[1:]))


def test_a_number_that_is_none_stays_readable(verified: Any) -> None:
    failed = faulty(verified, error=float("inf"), max_abs=float("nan"))
    report = strict(report_of(failed, budget="b", versions={}))
    assert report["passed"] is False
    figures = {"error": "inf", "bound": 1e-4, "max_abs": "nan", "call": 3, "share": 0.0}
    assert report["checks"][0]["tensors"]["ssm_state.1"] == figures


def test_the_error_names_check_tensor_call_and_figures(verified: Any) -> None:
    failed = faulty(verified, error=0.0123, share=0.5)
    with pytest.raises(BuildError) as caught:
        require_passed(failed)
    assert str(caught.value) == (
        "budget tight, float32 check, ssm_state.1 after call 3: expected a relative error of at most 0.0001 against the"
        " masked parent (PyTorch), rows one at a time without padding, found 0.0123, with 50.0% of the values"
        " different. No bundle was written; the whole report lies beside it, OUT.failed.json."
    )
    require_passed(verified)


def test_report_and_error_tell_the_bound_that_noise_has_widened(verified: Any) -> None:
    """Ten times the noise where that is more than the table's 2e-3 and 25 %, two and a half times those at most."""
    wrong = Difference("branch.3", 6e-3, 0.1, 2, 0.7, noise=4e-4, noise_share=0.05)
    rounded = replace(verified.checks[1], comparison=Comparison((wrong,), 1.0))
    failed = replace(verified, checks=(verified.checks[0], rounded))
    figures = strict(report_of(failed, budget="b", versions={}))["checks"][1]["tensors"]["branch.3"]
    assert (figures["bound"], figures["share_bound"]) == (4e-3, 0.5)
    text = r"a relative error of at most 0\.004 and at most 50\.0% of the values different against .* found 0\.006"
    with pytest.raises(BuildError, match=text):
        require_passed(failed)


def test_the_golden_run_is_the_oracles(verified: Any, compiled: Any) -> None:
    golden, plan = verified.golden, compiled("bf16").plan
    np.testing.assert_array_equal(golden.length, [step.length for step in plan.steps])
    assert golden.logits.shape == (len(plan.steps), 2, 131)
    assert (np.abs(golden.logits).sum(axis=2) > 0).tolist() == (golden.length > 0).tolist()
    assert set(golden.states) == {s.input for s in compiled("bf16").emitted.state_slices}


def test_golden_of_every_token_holds_the_last(compiled: Any, verified: Any) -> None:
    every = compiled("bf16", every_token=True)
    result = every.verify(every.emitted)
    assert result.passed
    np.testing.assert_allclose(result.golden.logits, verified.golden.logits, rtol=1e-3, atol=1e-4)


def test_tolerances_are_those_of_the_table(verified: Any) -> None:
    assert [check.tolerance for check in verified.checks] == [TOLERANCES[c.name]["bf16"] for c in verified.checks]
