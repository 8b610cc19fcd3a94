"""The passes of one budget, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from elastic_export.dtypes import DTYPES
from elastic_export.graph.facts import clone_with_facts, facts_of
from elastic_export.layers.budget import Budget
from elastic_export.layers.eight_bits import EightBits
from elastic_export.ops.all_ops import OPS
from elastic_export.passes.assign_precision import AssignPrecision
from elastic_export.passes.base import After, GraphPass, run_passes
from elastic_export.passes.bind_budget import BindBudget
from elastic_export.passes.collapse_layers import CollapseSkippedLayers
from elastic_export.passes.lower_linear import LowerLinear
from elastic_export.passes.lower_ops import LowerOp
from elastic_export.passes.narrow import Narrow
from elastic_export.passes.quantise_linear import QuantiseLinear
from elastic_export.passes.remove_dead import RemoveDead
from elastic_export.passes.remove_full_masks import RemoveFullMasks
from elastic_export.passes.renumber_states import RenumberStates
from elastic_export.plan.job import ExportJob
from elastic_export.reference import budget_masks


def sub_model_graph(
    job: ExportJob, budget: Budget, parent: ir.Model, stored: Callable[[str], str], after: After | None = None
) -> ir.Model:
    """The plain sub-model's graph out of the parent's, which stays as it is.

    Args:
        job: what is exported.
        budget: what is kept.
        parent: as `trace_parent` made it.
        stored: name of a tensor of the parent -> dtype in which the bundle holds it.
        after: sees the graph between passes (dumps of `--debug`).
    """
    graph = clone_with_facts(parent)
    masks = {name: mask.numpy() for name, mask in budget_masks(job.parent, budget).items()}
    dtypes = {name: DTYPES[stored(name)].ir for name in facts_of(graph).tensors()}
    passes = budget_passes(masks, DTYPES[job.precision].ir, dtypes, eight_bits=job.eight_bits)
    return run_passes(graph, passes, after)


def budget_passes(
    masks: Mapping[str, np.ndarray],
    dtype: ir.DataType,
    stored: Mapping[str, ir.DataType],
    *,
    eight_bits: EightBits | None = None,
) -> tuple[GraphPass, ...]:
    """Parent graph -> plain sub-model in standard ops and those of ours that ship.

    Args:
        masks: the budget's masks by name, as `reference.budget_masks` makes them.
        dtype: the model's dtype.
        stored: dtype of every tensor as the bundle's files hold it, by tensor name.
        eight_bits: the matrices that the bundle holds in eight bits, where it does.
    """
    return (
        # Everything below reads the masks as constants.
        BindBudget(masks),
        # Before narrowing: a branch that is zero as a whole needs no channel, and no op can keep none of an axis.
        CollapseSkippedLayers(),
        # What only fed those branches; Narrow refuses a node that the logits do not need.
        RemoveDead(),
        # On whole tensors and the parent's ops: an op has one liveness rule there, and would have a dozen once lowered.
        Narrow(),
        # Only now is every mask all ones; an op whose mask has a zero left is a fault of the pass before.
        RemoveFullMasks(),
        # The sub-model's own count of states; facts still say which layer of the parent each belongs to.
        RenumberStates(),
        # Before lowering: which values are wide is said of whole ops, and what they become follows the dtype.
        AssignPrecision(dtype, stored),
        *(LowerOp(op) for op in OPS if op.shipped is None),
        LowerLinear(),
        # On what linear layers have become, last: the layouts of weights and their products' inputs are settled.
        *(() if eight_bits is None else (QuantiseLinear(eight_bits),)),
        # Shapes, masks and transposes that a lowering has left without a reader.
        RemoveDead(),
    )
