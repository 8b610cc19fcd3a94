"""Which stages are run, in which order; each choice is made of what the stages before it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from elastic_runtime.bringup.modes import MODES, WHOLE_GRAPH
from elastic_runtime.bringup.results import NOT_RUN, Found
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import Card

Say = Callable[[str], None]
#: Of TensorRT for RTX 1.7: its own ComputeCapability, and its support matrix.
RTX = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")


@dataclass(frozen=True)
class Task:
    """A stage to run, on an engine or a budget or neither.

    Attributes:
        stage: its name.
        engine: a file of the manifest.
        budget: the name of one.
        mode: how decode steps run.
        refused: why it is not run, where that is known without a process.
    """

    stage: str
    engine: str = ""
    budget: str = ""
    mode: str = ""
    refused: str = ""

    def text(self) -> str:
        """For people."""
        return " ".join(filter(None, (self.stage, self.engine or self.budget, self.mode)))


@dataclass(frozen=True)
class Step:
    """A stage that was run. `result` holds `found` or `error`, and `ended` (how) where it did not end well."""

    task: Task
    seconds: float
    result: dict[str, Any]

    @property
    def found(self) -> Found:
        """What it found; nothing where it failed."""
        return self.result.get("found") or {}

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than by itself and well. What it found may be bad enough."""
        return "found" not in self.result or "ended" in self.result

    def text(self) -> str:
        """One line."""
        if "found" not in self.result:
            return f"{self.task.text()}: {self.result.get('error') or self.result.get('ended')}"
        if reason := self.found.get(NOT_RUN):
            return f"{self.task.text()}: not run: {reason}"
        ended = f", then {self.result['ended']}" if "ended" in self.result else ""
        return f"{self.task.text()}: done in {self.seconds:.1f} s{ended}"


def plan(bundle: Bundle, steps: Sequence[Step], say: Say) -> Iterator[Task]:
    """The tasks in order: what can be told without the card first, the smallest budget's engines before larger ones'.

    Args:
        bundle: opened.
        steps: those that were run; whoever runs a task adds to it before asking for the next.
        say: hears what can be tried here and what cannot.
    """
    yield Task("machine")
    yield Task("card")
    found = _card(steps, say)
    if found is None:
        return
    say(f"{found.name}, compute capability {found.compute_capability}")
    engines = _engines(bundle, found)
    if reason := _why_no_engine(found, engines):
        say(reason)
    yield Task("device")
    if reason:
        yield Task("engine", refused=reason)
    else:
        for engine in engines:
            yield from _engine_tasks(engine)
    for budget in reversed(bundle.budgets):
        yield Task("ort", budget=budget.name)
    for engine in engines:
        if _golden_failed(engine, steps):
            yield Task("sanitizer", engine=engine)
    yield Task("kernels")


def _engine_tasks(engine: str) -> Iterator[Task]:
    for stage in ("engine", "context", "context-again"):
        yield Task(stage, engine=engine, mode=WHOLE_GRAPH if stage != "engine" else "")
    for mode in MODES:
        yield Task("golden", engine=engine, mode=mode)
    for stage in ("speed", "life"):
        yield Task(stage, engine=engine, mode=WHOLE_GRAPH)


def _card(steps: Sequence[Step], say: Say) -> Card | None:
    """What stage `card` found."""
    step = next((step for step in steps if step.task.stage == "card"), None)
    if step is not None and "card" in step.found:
        return Card(**step.found["card"])
    if step is not None and not step.failed:
        say("no NVIDIA card here, or no driver: only the machine is looked at; run this where the card is")
    else:
        say("the driver does not answer: only the machine is looked at; see whether nvidia-smi shows the card")
    return None


def _why_no_engine(found: Card, engines: Sequence[str]) -> str:
    capability = found.compute_capability
    if capability not in RTX:
        return (
            f"TensorRT for RTX runs no engine on compute capability {capability} (it takes {', '.join(RTX)}): the "
            "driver's calls, onnxruntime and the kernels are tried"
        )
    return "" if engines else f"the bundle has no engine for {capability}: export it with a --target of that class"


def _engines(bundle: Bundle, found: Card) -> list[str]:
    """Engines for that card, those of the smallest budget first: what fails there is the quickest to see."""
    if found.compute_capability not in RTX:
        return []
    budgets = reversed(bundle.budgets)
    return [e.file for b in budgets for e in b.engines if found.compute_capability in e.compute_capabilities]


def _golden_failed(engine: str, steps: Sequence[Step]) -> bool:
    """Whether any of its golden runs did not end well, or was beyond the bounds."""
    golden = [step for step in steps if step.task.stage == "golden" and step.task.engine == engine]
    return any(step.failed or not step.found.get("within_bounds", True) for step in golden)
