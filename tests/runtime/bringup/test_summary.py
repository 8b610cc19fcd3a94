"""The page of a report: what went wrong is on it, and no form of a result costs the page."""

from __future__ import annotations

from typing import Any

import pytest

from elastic_runtime.bringup.plan import Step, Task
from elastic_runtime.bringup.stages import STAGES
from elastic_runtime.bringup.summary import summary

GOLDEN: dict[str, Any] = {
    "bounds": {"logits": 0.06, "states": 0.09},
    "calls": [{}] * 18,
    "within_bounds": False,
    "worst_logits": "inf",
    "worst_state": 0.12345,
    "same_ids": 17,
    "first_state_beyond": {"name": "ssm_state.4", "parent_layer": 9},
    "not_finite": {"logits.0.3": 12, "logits.0.4": 12},
    "graphs": "by TensorRT",
    "others_in": "golden-eager.npz",
    "differ": ["logits.0.3", "logits.0.4"],
}


def _page(stage: str, result: dict[str, Any], *notes: str) -> list[str]:
    return summary(notes, [Step(Task(stage, engine="small/a.engine"), 1.25, result)]).splitlines()


def test_what_was_said_comes_first_then_each_stage() -> None:
    lines = _page("life", {"found": {"lost": 0}}, "a card", "interrupted")
    assert lines == ["a card", "interrupted", "", "life small/a.engine: done in 1.2 s", "    lost 0"]


def test_a_golden_run_that_went_wrong_names_the_place() -> None:
    assert _page("golden", {"found": GOLDEN})[2:] == [
        "    BEYOND the bounds: logits off by inf at most (0.06), states by 0.123 (0.09), "
        "17 of 18 likeliest ids the same",
        "    the first state beyond: ssm_state.4, of layer 9 of the parent",
        "    nan or inf in 2 arrays, the first logits.0.3: 12",
        "    decode steps recorded: by TensorRT",
        "    2 arrays differ from those in golden-eager.npz",
    ]


def test_kernels_that_are_wrong_are_said_to_be() -> None:
    report = {"machine": "H100", "passed": False, "case_runner": {"failures": ["decode base: 2 above 1"]}}
    lines = _page("kernels", {"found": {"report": report}})
    assert lines[2:] == ["    H100: NOT correct", "    decode base: 2 above 1"]


def test_device_calls_that_are_wrong_are_said_to_be() -> None:
    found = {"copies_equal": True, "rows_equal": False, "graph_ran": True, "refused": "", "x_bytes_per_second": 2.5e9}
    lines = _page("device", {"found": found})
    assert lines[2].startswith("    WRONG: ")
    assert lines[3:] == ["    x 2.5 GB/s", "    of too much memory: it was given"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("result", "line"),
    [
        ({"error": "a file: expected this"}, "a file: expected this"),
        ({"ended": "signal 9 ended it"}, "signal 9 ended it"),
        ({"found": {"not_run": "no tool"}}, "not run: no tool"),
    ],
)
def test_a_stage_that_failed_or_was_not_run_is_one_line(stage: str, result: dict[str, Any], line: str) -> None:
    assert _page(stage, result) == ["", f"{stage} small/a.engine: {line}"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_result_of_another_form_does_not_cost_the_page(stage: str) -> None:
    lines = _page(stage, {"found": {"report": {}, "other": 1}})
    assert lines[1] == f"{stage} small/a.engine: done in 1.2 s"
