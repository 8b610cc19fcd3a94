"""Which stages are run, by what the earlier ones found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from elastic_runtime.bringup.modes import MODES
from elastic_runtime.bringup.plan import Step, Task, plan
from elastic_runtime.bringup.results import Found
from elastic_runtime.bringup.stages import STAGES
from elastic_runtime.bundle import Bundle

Answer = Callable[[Task], Found | None]


def _planned(
    bundle: Path | Bundle, capability: str, answer: Answer = lambda task: None
) -> tuple[list[Task], list[str]]:
    """Tasks and what was said, where every stage finds what `answer` gives, or nothing."""
    steps, said = list[Step](), list[str]()
    card = {"name": "a card", "compute_capability": capability, "total": 16 << 30, "free": 15 << 30}
    for task in plan(bundle if isinstance(bundle, Bundle) else Bundle.open(bundle), steps, said.append):
        result = answer(task) or {"found": {"card": card} if task.stage == "card" else {}}
        steps.append(Step(task, 0.5, result))
    return [step.task for step in steps], said


def test_every_stage_that_is_planned_is_one(demo_bundle: Path) -> None:
    tasks, _ = _planned(demo_bundle, "12.0", lambda task: {"ended": "badly"} if task.stage == "golden" else None)
    assert {task.stage for task in tasks} == STAGES.keys() - {"calls"}  # which the sanitizer runs


def test_the_smallest_budget_is_tried_first_and_every_mode_of_it(demo_bundle: Path) -> None:
    tasks, said = _planned(demo_bundle, "12.0")
    assert said == ["a card, compute capability 12.0"]
    assert [task.stage for task in tasks[:3]] == ["machine", "card", "device"]
    first = [task for task in tasks if task.engine == "small/rtx5080.engine"]
    assert tasks[3 : 3 + len(first)] == first
    assert [task.mode for task in first if task.stage == "golden"] == list(MODES)
    assert {task.engine for task in tasks if task.engine} == {
        f"{b}/rtx5080.engine" for b in ("small", "medium", "large")
    }
    assert [(task.stage, task.budget) for task in tasks[-4:-1]] == [("ort", b) for b in ("small", "medium", "large")]
    assert tasks[-1] == Task("kernels")


def test_native_and_plugin_engine_of_a_budget_are_both_tried(demo_bundle: Path) -> None:
    opened = Bundle.open(demo_bundle)
    (native,) = opened.budget("small").engines
    both = replace(opened.budget("small"), engines=(replace(native, file="small/plugin.engine"), native))
    bundle = Bundle(opened.path, replace(opened.manifest, budgets=(both,)), None)
    tasks, _ = _planned(bundle, "12.0")
    golden = [(task.engine, task.mode) for task in tasks if task.stage == "golden"]
    assert golden == [(engine.file, mode) for engine in both.engines for mode in MODES]


def test_a_card_that_tensorrt_does_not_run_on_is_named_at_once(demo_bundle: Path) -> None:
    tasks, said = _planned(demo_bundle, "9.0")
    assert said[1].startswith("TensorRT for RTX runs no engine on compute capability 9.0 (it takes 7.5, 8.0,")
    assert [task.stage for task in tasks] == ["machine", "card", "device", "engine", "ort", "ort", "ort", "kernels"]
    assert tasks[3].refused == said[1]


def test_a_card_without_engines_is_told_how_to_get_some(demo_bundle: Path) -> None:
    tasks, said = _planned(demo_bundle, "8.0")
    assert said[1] == "the bundle has no engine for 8.0: export it with a --target of that class"
    assert tasks[3] == Task("engine", refused=said[1])
    assert tasks[-1] == Task("kernels")


@pytest.mark.parametrize(
    ("result", "looked_into"),
    [
        ({"found": {"within_bounds": True}}, False),
        ({"found": {"not_run": "no golden run"}}, False),
        ({"found": {"within_bounds": False}}, True),
        ({"ended": "signal 11 ended it"}, True),
        ({"found": {"within_bounds": True}, "ended": "signal 11 ended it"}, True),
        ({"error": "of TensorRT"}, True),
    ],
)
def test_an_engine_whose_golden_run_failed_is_looked_into(demo_bundle: Path, result: Found, looked_into: bool) -> None:
    def answer(task: Task) -> Found | None:
        return result if (task.stage, task.engine, task.mode) == ("golden", "medium/rtx5080.engine", "lazy") else None

    tasks, _ = _planned(demo_bundle, "12.0", answer)
    asked = [task.engine for task in tasks if task.stage == "sanitizer"]
    assert asked == (["medium/rtx5080.engine"] if looked_into else [])


def test_nothing_is_tried_on_a_driver_that_does_not_answer(demo_bundle: Path) -> None:
    tasks, said = _planned(demo_bundle, "12.0", lambda task: {"ended": "slowly"} if task.stage == "card" else None)
    assert [task.stage for task in tasks] == ["machine", "card"]
    assert said == ["the driver does not answer: only the machine is looked at; see whether nvidia-smi shows the card"]
