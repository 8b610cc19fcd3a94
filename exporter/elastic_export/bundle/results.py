"""What an export came to: the summary, the record of the run and the manifest are made from these.

Without torch and onnx: that nothing need be done is said before they are imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastic_export.bundle.made_from import Origin
from elastic_export.bundle.standing import KeptModel
from elastic_export.checkpoint.conversion import Conversion
from elastic_export.engine.engine_facts import EngineFacts, EngineReport
from elastic_export.layers.budget import Budget
from elastic_export.weights.weight_loss import Rounding
from elastic_runtime.format.budget_size import BudgetSize
from elastic_runtime.format.manifest import EngineEntry, Manifest

if TYPE_CHECKING:
    from elastic_export.emit import ModelFile
    from elastic_export.verify.verify import Verification


@dataclass(frozen=True)
class EngineResult:
    """An engine of the bundle. `facts`: of its build; None where it is one of the older bundle."""

    entry: EngineEntry
    report: EngineReport
    size: int
    origin: Origin
    facts: EngineFacts | None = None


@dataclass
class BudgetResult:
    """What one budget came to.

    Attributes:
        budget: what it keeps of the parent.
        size: what its memory depends on.
        kept: what stays of the older bundle; None where the budget was made.
        model: its ONNX file; None where it was kept and nobody had to read it.
        conversion: what another precision than the checkpoint's took from its weights, where it was made.
        rounding: what rounding to eight bits took from them, where it was made and they are quantised.
        verification: of a budget that was made.
        report: as it is in the bundle.
    """

    budget: Budget
    size: BudgetSize
    kept: KeptModel | None = None
    model: ModelFile | None = None
    conversion: Conversion | None = None
    rounding: Rounding | None = None
    verification: Verification | None = None
    engines: list[EngineResult] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)

    def warnings(self) -> list[str]:
        """What a user should know of its weights before anything is built from them."""
        warning = self.conversion.warning() if self.conversion is not None else ""
        return [f"{self.budget.name}: {warning}"] if warning else []


@dataclass(frozen=True)
class ExportResult:
    """A published bundle, and the record of the run that made it (`OUT.run.json`). `changed`: whether this export
    published it, or found that it was there already. `output` as it was asked for.
    """

    output: Path
    manifest: Manifest
    budgets: tuple[BudgetResult, ...]
    run: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    changed: bool = True
