"""Budgets of a checkpoint with quantised matrices: no cut goes through a block of columns that share a scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from elastic_export.checkpoint.tensors import QuantisedTensor, StoredTensor
from elastic_export.layers.architecture import Architecture, Stored
from elastic_export.layers.axis import Axis, Extent
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import tensor_runs
from elastic_export.runs import Runs
from elastic_runtime.errors import InputError


def check_alignment(
    subject: str,
    parent: Architecture,
    prefix: str,
    budgets: Mapping[str, Budget],
    tensors: Mapping[str, StoredTensor],
) -> None:
    """Raise InputError that names the budget, the width, the block and the first matrix whose block it cuts.

    Args:
        subject: the file of budgets.
        parent: the architecture.
        prefix: of its tensors' names.
        budgets: by name.
        tensors: the checkpoint's, of which quantised ones may have blocks.
    """
    formats = {name: tensor.format for name, tensor in tensors.items() if isinstance(tensor, QuantisedTensor)}
    blocked = [stored for stored in parent.tensors(prefix) if stored.name in formats and formats[stored.name].block > 1]
    for budget in budgets.values() if blocked else ():
        runs = tensor_runs(parent, budget, prefix)
        for stored in (stored for stored in blocked if stored.name in runs):
            fmt, columns = formats[stored.name], runs[stored.name][1]
            block = fmt.block
            if (cut := _first_cut(columns, block)) is not None:
                first = cut // block * block
                raise InputError(
                    f"{subject}, budget {budget.name!r}, {_widths(stored, budget)}",
                    expected=f"columns of {stored.name} kept in whole blocks of {block}, as {fmt.name} stores them",
                    found=f"a cut at column {cut}, inside the block {first} to {first + block - 1}",
                    todo="change the width so that the kept columns end between blocks, or export the checkpoint "
                    "that it was quantised from",
                )


def check_any_column(subject: str, tensors: Mapping[str, StoredTensor]) -> None:
    """Raise InputError that names the first matrix whose columns go in blocks: whoever tries widths by the thousand,
    and the last channels beside the first, cuts anywhere.

    Args:
        subject: the checkpoint.
        tensors: its tensors.
    """
    for tensor in tensors.values():
        if isinstance(tensor, QuantisedTensor) and tensor.format.block > 1:
            raise InputError(
                f"{subject}, tensor {tensor.name!r}",
                expected="a matrix that can be cut at any column",
                found=f"one in {tensor.format.name}, of which {tensor.format.block} columns share a scale",
                todo="propose budgets of the checkpoint that it was quantised from, or of one in FP8; to export this "
                "one by them, round their widths to whole blocks in a budget file of your own (--budgets FILE)",
            )


def _first_cut(columns: Runs, block: int) -> int | None:
    """The first end of a run that lies inside a block."""
    edges = (edge for start, count in columns for edge in (start, start + count))
    return next((edge for edge in edges if edge % block), None)


def _widths(stored: Stored, budget: Budget) -> str:
    """`mamba_num_heads 96 x mamba_head_dim 40`: what the budget keeps along a matrix's columns."""
    ordinal = stored.layer.ordinal if stored.layer else 0
    axes = _elastic(stored.tensor.axes[1])
    return " x ".join(f"{axis.key} {axis.of(budget, ordinal)}" for axis in axes)


def _elastic(extent: Extent) -> Iterator[Axis]:
    return (factor for span in extent for factor in span if isinstance(factor, Axis) and factor.elastic)
