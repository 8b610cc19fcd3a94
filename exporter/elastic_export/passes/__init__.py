"""From the masked parent's graph to one plain sub-model, a small pass at a time."""

from elastic_export.passes.base import GraphPass, run_passes
from elastic_export.passes.order import budget_passes

__all__ = ["GraphPass", "budget_passes", "run_passes"]
