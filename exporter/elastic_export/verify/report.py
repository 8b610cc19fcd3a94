"""`report.json` of a budget: what was verified, how, with what numbers; what was not, and why; what the builder said of
each engine.

When, where and how long belong to one run and not to the bundle: they are in its record (bundle/run_record.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from elastic_export.verify.compare import Difference
from elastic_export.verify.tolerance import Tolerance
from elastic_export.verify.verify import AGAINST, Check, Verification

SCHEMA = "elastic-report/1"
_MEASURES = {
    "float32": "end to end: relative L2 error of logits and of every state after every call, the worst row and call",
    "rounded": "layer by layer from the same inputs: relative L2 error of branch, sum and states, all rows and calls; "
    "of SSM states without the heads that one time step may have moved by its rounding, `heads_left_out`; `noise` is "
    "measured of layers that are outside the check's tolerance",
    "attributes": "read back from the file: relative difference of every norm's and mixer's attributes, the worst node",
}


def not_run(name: str, why: str, command: str) -> dict[str, str]:
    """An entry for a check that this machine could not run, with the command that runs it."""
    return {"check": name, "why": why, "command": command}


def engines_not_run(files: Sequence[str]) -> list[dict[str, str]]:
    """An entry for every engine: nothing here can run one."""
    why = "an engine runs on a card of its target's class only, and none was used for this export"
    return [not_run(file, why, "elastic-export verify BUNDLE --require engine") for file in files]


def no_verification() -> dict[str, str]:
    """The entry of an export that was told not to verify."""
    return not_run("float32 and rounded", "--no-verify was given", "export again without --no-verify")


def report_of(
    verification: Verification | None,
    *,
    budget: str,
    versions: dict[str, str],
    skipped: Sequence[dict[str, str]] = (),
    engines: Mapping[str, Mapping[str, Any]] | None = None,
    conversion: Mapping[str, Any] | None = None,
    rounding: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The report as plain JSON values. Without a verification it says so under `not_run`.

    `engines` is what the builder said of each engine, by its file in the bundle; `conversion` what another precision
    than the checkpoint's took from the weights (`Conversion.report`), `rounding` what eight bits did (`Rounding`).
    """
    return {
        "schema": SCHEMA,
        "budget": budget,
        "passed": None if verification is None else verification.passed,
        "checks": [] if verification is None else [_check(c) for c in verification.checks],
        "run": None if verification is None else _plan(verification),
        "not_run": sorted(skipped, key=lambda entry: entry["check"]),  # however the request was ordered
        "engines": dict(sorted((engines or {}).items())),
        "conversion": None if conversion is None else dict(conversion),
        "rounding": None if rounding is None else dict(rounding),
        "versions": versions,
    }


def _plan(verification: Verification) -> dict[str, Any]:
    plan = verification.plan
    calls = [{"tokens": step.tokens, "length": list(step.length)} for step in plan.steps]
    return {"seed": plan.seed, "batch": len(plan.ids), "context": plan.context, "calls": calls}


def _check(check: Check) -> dict[str, Any]:
    return {
        "check": check.name,
        "against": AGAINST[check.name],
        "measure": _MEASURES[check.name],
        "passed": check.passed,
        "tolerance": _bounds(check.tolerance),
        "reason": check.tolerance.reason,
        "top1": check.comparison.top1,
        "tensors": {
            difference.tensor: _tensor(check.tolerance, difference) for difference in check.comparison.differences
        },
    }


def _tensor(tolerance: Tolerance, found: Difference) -> dict[str, Any]:
    """A tensor's figures, each with the bound that it was held against: `tolerance` of the check, but for noise."""
    error, share = tolerance.bounds(found)
    figures = {
        "error": _number(found.error),
        "bound": error,
        "max_abs": _number(found.max_abs),
        "call": found.call,
        "share": found.share,
    }
    if share < 1.0:
        figures["share_bound"] = share
    if found.noise or found.noise_share:
        figures |= {"noise": found.noise, "noise_share": found.noise_share}
    if found.left_out:
        figures["heads_left_out"] = found.left_out
    return figures


def _bounds(tolerance: Tolerance) -> dict[str, float]:
    return {"error": tolerance.error, "state_error": tolerance.bound("_state"), "branch_share": tolerance.share}


def _number(value: float) -> float | str:
    """A number JSON can hold; what is none is named."""
    return float(value) if math.isfinite(value) else str(float(value))
