"""`elastic-export targets`: the GPU classes, and what of a checkpoint fits each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.resolve import resolve_checkpoint
from elastic_export.cli.lenient import lenient_options
from elastic_export.layers.architecture import Architecture
from elastic_export.plan.eight_bits import goes_with_int8
from elastic_export.plan.fit_table import align, short, verdict
from elastic_export.plan.job import ExportOptions, budget_sizes, precision_of
from elastic_export.plan.limits import can_have_plugins, largest_context
from elastic_export.products import TENSORRT_RTX
from elastic_runtime.fit.targets import Target, load_targets
from elastic_runtime.fit.vram import bandwidth_floor, gib
from elastic_runtime.format.budget_size import BudgetSize
from elastic_runtime.format.forms import entry_name
from elastic_runtime.format.interface import OpsMode, Precision

CONTEXTS = (8192, 16384, 32768, 131072)
OPS_MODES: tuple[OpsMode, OpsMode] = ("plugin", "native")
#: The largest context of an engine of each mode; None where nothing limits it.
Largest = Mapping[OpsMode, int | None]


@click.command()
@click.option(
    "--checkpoint",
    metavar="DIR|REPO",
    help="Show what of this checkpoint fits, and how fast it could be.  [default: $ELASTIC_CHECKPOINT]",
)
@lenient_options
def targets(checkpoint: str | None, ignore_tensors: tuple[str, ...], ignore_config: tuple[str, ...]) -> None:
    """List the GPU classes that --target takes.

    With compute capability, memory, bandwidth and where the figures come from.
    """
    known = list(load_targets().values())
    click.echo("\n".join(_table(known)))
    folder = resolve_checkpoint(checkpoint, os.environ) if checkpoint or "ELASTIC_CHECKPOINT" in os.environ else None
    if folder is not None:
        opened = Checkpoint.open(folder, ignore_tensors=ignore_tensors, ignore_config=ignore_config)
        for warning in opened.warnings:
            click.echo(f"note: {warning}", err=True)
        budgets = list(opened.budgets.values())
        sizes = budget_sizes(opened, budgets, ExportOptions("all", "", Path()))
        precision = precision_of(opened)
        largest = {
            budget.name: {ops: _largest(budget.architecture(opened.architecture), precision, ops) for ops in OPS_MODES}
            for budget in budgets
        }
        if goes_with_int8(opened, precision, "shared", ()):
            quantised = budget_sizes(opened, budgets, ExportOptions("all", "", Path(), quantise="int8"))
            pairs = zip(sizes, (replace(size, name=entry_name(size.name, "int8")) for size in quantised), strict=True)
            sizes = tuple(size for pair in pairs for size in pair)
            largest |= {entry_name(name, "int8"): context for name, context in largest.items()}
        click.echo("\n".join(["", *_fit(known, sizes, largest)]))


def _largest(model: Architecture, precision: Precision, ops: OpsMode) -> int | None:
    """The largest context of an engine, which is native where the model's layers take no plugin."""
    return largest_context(model, precision, ops if can_have_plugins(model, precision, TENSORRT_RTX) else "native")


def _table(known: list[Target]) -> list[str]:
    rows = [["target", "card", "compute", "VRAM", "usable", "GB/s", "source"]]
    for target in known:
        rows.append(
            [
                target.name,
                target.display_name,
                ",".join(target.compute_capabilities),
                "-" if target.vram_bytes is None else f"{gib(target.vram_bytes)} GiB",
                "-" if target.usable_bytes is None else f"{gib(target.usable_bytes)} GiB",
                "-" if target.bandwidth_gbs is None else f"{target.bandwidth_gbs:.0f}",
                target.source,
            ]
        )
    return align(rows, left=(0, 1, 2, 6))


def _fit(known: list[Target], sizes: tuple[BudgetSize, ...], largest: Mapping[str, Largest]) -> list[str]:
    """Per card and budget: which contexts fit, and the tokens a second that its memory bandwidth allows at 8k.

    `largest` is the largest context that builds for each budget, by ops mode; beyond both there is nothing to fit.
    """
    rows = [["target", "budget", *(short(context) for context in CONTEXTS), f"tokens/s at most, {short(CONTEXTS[0])}"]]
    for target in known:
        for size in sizes if target.usable_bytes is not None else ():
            floor = bandwidth_floor(size, target, context=CONTEXTS[0])
            most = largest[size.name]["plugin"]
            fits = ["-" if most and context > most else verdict(size, target, (context,)) for context in CONTEXTS]
            rows.append([target.name, size.name, *fits, "-" if floor is None else f"{floor:.0f}"])
    return [*align(rows, left=(0, 1, 2, 3, 4, 5)), *_notes(largest)]


def _notes(largest: Mapping[str, Largest]) -> list[str]:
    plugin, native = (
        [most for by_mode in largest.values() if (most := by_mode[ops]) and most < CONTEXTS[-1]] for ops in OPS_MODES
    )
    if plugin:
        return [f"-: no engine can be built for that context, the longest has {max(plugin)} tokens"]
    return [f"contexts above {max(native)} tokens are for plugin engines alone"] if native else []
