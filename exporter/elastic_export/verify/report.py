"""`report.json` of a budget: what was verified, how, where, with what numbers; what was not, and why."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from typing import Any

from elastic_export.verify.verify import Check, Verification

SCHEMA = "elastic-report/1"


def not_run(name: str, why: str, command: str) -> dict[str, str]:
    """An entry for a check that this machine could not run, with the command that runs it."""
    return {"check": name, "why": why, "command": command}


def report_json(
    verification: Verification | None,
    *,
    budget: str,
    versions: dict[str, str],
    skipped: Sequence[dict[str, str]],
    seconds: dict[str, float],
) -> str:
    """The report's text. Without a verification it says so under `not_run`."""
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "budget": budget,
        "passed": None if verification is None else verification.passed,
        "checks": [] if verification is None else [_check(c) for c in verification.checks],
        "run": None if verification is None else _plan(verification),
        "not_run": list(skipped),
        "where": {"machine": platform.machine(), "system": platform.system(), "python": platform.python_version()},
        "versions": versions,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }
    return json.dumps(report, indent=1) + "\n"


def _plan(verification: Verification) -> dict[str, Any]:
    plan = verification.plan
    calls = [{"tokens": step.tokens, "length": list(step.length)} for step in plan.steps]
    return {"seed": plan.seed, "batch": len(plan.ids), "context": plan.context, "calls": calls}


def _check(check: Check) -> dict[str, Any]:
    return {
        "check": check.name,
        "against": "masked parent (PyTorch), rows one at a time without padding",
        "measure": "relative L2 error of logits and of every state after every call, the worst call",
        "passed": check.passed,
        "tolerance": check.tolerance.error,
        "reason": check.tolerance.reason,
        "top1": check.comparison.top1,
        "tensors": {
            d.tensor: {"error": d.error, "max_abs": d.max_abs, "call": d.call} for d in check.comparison.differences
        },
    }
