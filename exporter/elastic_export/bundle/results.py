"""What an export came to: the summary, the record of the run and the manifest are made from these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from elastic_export.checkpoint.conversion import Conversion
from elastic_export.emit import EmittedModel
from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.layers.budget import Budget
from elastic_export.verify.verify import Verification
from elastic_runtime.format.budget_size import BudgetSize
from elastic_runtime.format.manifest import EngineEntry, Manifest


@dataclass
class BudgetResult:
    """What one budget came to. `conversion`: what another precision than the checkpoint's took from its weights."""

    budget: Budget
    emitted: EmittedModel
    size: BudgetSize
    conversion: Conversion | None = None
    verification: Verification | None = None
    engines: list[tuple[EngineEntry, EngineFacts]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def warnings(self) -> list[str]:
        """What a user should know of its weights before anything is built from them."""
        warning = self.conversion.warning() if self.conversion is not None else ""
        return [f"{self.budget.name}: {warning}"] if warning else []


@dataclass(frozen=True)
class ExportResult:
    """A published bundle, and the record of the run that made it (`OUT.run.json`)."""

    output: Path
    manifest: Manifest
    budgets: tuple[BudgetResult, ...]
    run: Mapping[str, Any]
