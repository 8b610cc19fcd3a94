"""report.json: what every stage found, on disk after every line of it.

Findings: `check` {what, errors, wrong: "" or why}, of a peer {peer: true}, of a case {op, type} as well; `time` {op,
what, who, us, p10, p90, bytes, sets, and the size}; `kernels` {op, what, who, kernels: [{name, us, launches}]};
`counters` {kernel, grid, and ncu.METRICS}; `legend` {op, who, text}; `ceiling` {copy_gb_s, copies, gemm_tflops,
clocks}; `skipped` {what, why}; `note` {...}.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = "elastic-device-check/1"


@dataclass
class StageReport:
    """One stage.

    outcome: `running`, `done`, `late` (ended at its deadline), `died` (its last output in `words`), `skipped` (`words`
    say why).
    """

    name: str
    proves: bool
    outcome: str = "running"
    seconds: float = 0.0
    words: str = ""
    findings: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Report:
    """All stages so far."""

    folder: Path
    machine: str = ""
    stages: list[StageReport] = field(default_factory=list)

    def add(self, name: str, *, proves: bool = False) -> StageReport:
        """A stage that begins. `proves`: without its end nothing is proven."""
        self.stages.append(StageReport(name, proves))
        self.flush()
        return self.stages[-1]

    def findings(self, kind: str) -> list[dict[str, Any]]:
        """Of all stages, in order."""
        return [f for stage in self.stages for f in stage.findings if f["kind"] == kind]

    def wrong(self) -> list[str]:
        """What is not correct, in words. A peer that is wrong is only not timed."""
        checks = [f for f in self.findings("check") if f["wrong"] and not f.get("peer")]
        return [f"{check['what']}: {check['wrong']}" for check in checks]

    def unproven(self) -> list[str]:
        """What should have been checked and was not."""
        ends = [f"{s.name}: {s.outcome}, {s.words}" for s in self.stages if s.proves and s.outcome != "done"]
        cut = [f for s in self.stages if s.proves for f in s.findings if f["kind"] == "skipped"]
        return ends + [f"{f['what']}: {f['why']}" for f in cut]

    def passed(self) -> bool:
        """Everything that proves something ended, and nothing is wrong."""
        return not self.wrong() and not self.unproven()

    def as_json(self) -> dict[str, Any]:
        """What is written."""
        return {
            "schema": SCHEMA,
            "machine": self.machine,
            "passed": self.passed(),
            "wrong": self.wrong(),
            "unproven": self.unproven(),
            "stages": [vars(stage) for stage in self.stages],
        }

    def flush(self) -> None:
        """Puts it on disk, whole at every moment."""
        path = self.folder / "report.json"
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(self.as_json(), indent=1) + "\n")
        os.replace(draft, path)
