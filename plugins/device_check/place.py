"""What a stage is given, and how it says what it found."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Place:
    """Where a stage runs.

    Attributes:
        programs: folder with libelastic_plugins.so and the programs that run each op's cases, built for this card.
        peers: folder that prepare_peers.py filled; None: no peers.
        scratch: the stage's own folder.
        report: folder of the report, for files besides report.json.
        until: `time.time()` at which the stage is ended.
        device: `cuda`, or `cpu` for the host shim's build.
        options: of the stage.
    """

    programs: Path
    peers: Path | None
    scratch: Path
    report: Path
    until: float
    device: str = "cuda"
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def findings(self) -> Path:
        """One JSON object a line; whole lines are findings even if the stage dies."""
        return self.scratch / "findings.jsonl"

    def emit(self, kind: str, **values: Any) -> None:
        """Adds a finding: `check`, `time`, `kernels`, ... (report.py names them, and what is in them)."""
        with self.findings.open("a") as file:
            file.write(json.dumps({"kind": kind, **values}) + "\n")

    def left(self) -> float:
        """Seconds until the stage is ended."""
        return self.until - time.time()

    def in_time(self, items: Sequence[tuple[str, float]]) -> Iterator[str]:
        """Names of (name, seconds it takes) while they still fit; the rest become findings `skipped`, by name."""
        for name, seconds in items:
            if self.left() < seconds:
                self.emit("skipped", what=name, why=f"takes {seconds:g} s, {max(0.0, self.left()):.0f} s left")
            else:
                yield name

    def write(self, path: Path) -> None:
        """For `read` in the stage's own process."""
        path.write_text(json.dumps(asdict(self), default=str))


def read(path: Path) -> Place:
    """What `write` wrote."""
    values = json.loads(path.read_text())
    for name in ("programs", "peers", "scratch", "report"):
        values[name] = Path(values[name]) if values[name] is not None else None
    return Place(**values)
