"""`elastic-export` itself: options, the table of what fits, the job, the summary."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from elastic_export.bundle.destination import check_destination
from elastic_export.bundle.digests import Digests, remembering_digests
from elastic_export.bundle.forecast import check_machine, forecast
from elastic_export.bundle.forecast_carried import carried_over
from elastic_export.bundle.unchanged import unchanged
from elastic_export.checkpoint.demo import demo_checkpoint
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.resolve import resolve_checkpoint
from elastic_export.cli.lenient import LENIENT
from elastic_export.cli.summary import plan_json, result_json, summary
from elastic_export.cli.terminal import ConsoleProgress
from elastic_export.engine.flavour import flavour
from elastic_export.plan.job import ExportJob, ExportOptions, plan_job
from elastic_export.plan.limits import MAX_TOKENS
from elastic_export.plan.machine import this_machine
from elastic_export.plan.ops_modes import OPS_WISHES
from elastic_export.products import PRODUCTS, TENSORRT_RTX
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.interface import PRECISIONS

if TYPE_CHECKING:
    from elastic_export.bundle.results import ExportResult

F = TypeVar("F", bound=Callable[..., Any])
DEMO_NOTE = (
    "no checkpoint given: this is the built-in demo model, which writes what looks like Python and means nothing"
)

_OPTIONS = (
    click.option("--checkpoint", metavar="DIR|REPO",
                 help="Elastic checkpoint: a folder, or a cached Hugging Face id.  "
                      "[default: $ELASTIC_CHECKPOINT, else the demo]"),
    click.option("--budget", "budget", metavar="all|NAME,…", help="Sub-models to export.  [required]"),
    click.option("--target", "target", metavar="NAME,…",
                 help="GPU classes that `elastic-export targets` lists; any other card as sm89:24GiB:1008GBps.  "
                      "[required]"),
    click.option("--output", type=click.Path(path_type=Path),
                 help="Bundle folder.  [default: engines/<checkpoint name>]"),
    click.option("--weights", type=click.Choice(["shared", "sliced", "embedded"]), default="shared", show_default=True,
                 help="shared: slices of the parent's shards; sliced: a checkpoint per sub-model;"
                      " embedded: inside the engine, up to 1.5 GiB."),
    click.option("--ops", type=click.Choice(OPS_WISHES), default="auto", show_default=True,
                 help="Mamba-2 and attention as our CUDA plugins, or compiled by TensorRT from their function bodies;"
                      " auto: plugin where a plugin library goes into the engine, else an engine of each."),
    click.option("--plugins", type=click.Path(path_type=Path), metavar="DIR",
                 help="Folder of the plugin libraries that go into engines.  "
                      "[default: the installed elastic-plugins, else what `elastic-export plugins build` made]"),
    click.option("--flavour", type=click.Choice(list(PRODUCTS)), default=TENSORRT_RTX.name, show_default=True,
                 help="TensorRT product; the full one is experimental, never run, and builds for this GPU only."),
    click.option("--precision", type=click.Choice(PRECISIONS),
                 help="What engines compute in; another one than the checkpoint's needs --weights sliced or embedded,"
                      " or --quantize.  [default: the checkpoint's]"),
    click.option("--quantize", "quantise", type=click.Choice(["none", "int8"]), default="none", show_default=True,
                 help="int8: matrices in eight bits, a scale a row; the parent is quantised once, for all budgets."),
    click.option("--max-tokens", type=int,
                 help="Tokens of one call: more read a prompt faster and take more scratch memory.  "
                      f"[default: {MAX_TOKENS}, or a smaller --max-context]"),
    click.option("--max-context", default="16384", show_default=True, metavar="N[,N…]",
                 help="Tokens of a sequence; one engine each. Long ones are for plugin engines."),
    click.option("--max-batch", type=int, default=1, show_default=True, help="Sequences of one call, at most."),
    click.option("--logits", type=click.Choice(["last", "all"]), default="last", show_default=True,
                 help="Of the last token of a call, or of all its tokens."),
    click.option("--budgets", "budgets_file", type=click.Path(path_type=Path),
                 help="Budget file instead of elastic_config.json."),
    *LENIENT,
    click.option("--external-weights", is_flag=True,
                 help="Name the parent's shards in the bundle instead of holding them."),
    click.option("--dry-run", is_flag=True,
                 help="Print what fits and what the run takes, and stop; nothing is written."),
    click.option("--require-fit", is_flag=True, help="Exit 1 if any budget does not fit one of the targets."),
    click.option("--allow-unfit", is_flag=True, help="Build even where no budget fits a target."),
    click.option("--allow-oversize", is_flag=True,
                 help="Keep engines above the bounds on their size and scratch memory; the report says so."),
    click.option("--allow-short", is_flag=True,
                 help="Begin even where memory or disk look too short; both are estimates."),
    click.option("--no-verify", is_flag=True, help="Skip verification, and make no golden runs; the report says so."),
    click.option("--distrust", is_flag=True,
                 help="Digest shards again whose digest is remembered, as their size and times have not changed."),
    click.option("--jobs", type=int, metavar="N",
                 help="Engines built side by side.  [default: what processors and free memory allow]"),
    click.option("--add", is_flag=True, help="Keep what else the bundle has of the same checkpoint."),
    click.option("--force", is_flag=True, help="Replace an output folder that is not a bundle."),
    click.option("--json", "as_json", is_flag=True,
                 help="Results as JSON on standard output; tables go to standard error."),
    click.option("--debug", is_flag=True,
                 help="Dump the graph after every pass to OUTPUT.debug/; show a traceback with an error."),
)  # fmt: skip


def export_options(function: F) -> F:
    """Add the options of an export to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def run_export(*, dry_run: bool, as_json: bool, **given: Any) -> None:
    """Plan, print what fits, build, print the summary."""
    progress = ConsoleProgress()
    job = checked_job(progress, **given)
    if dry_run:
        print_plan(job, as_json=as_json, alone=True)
        return
    with remembering_digests(distrust=job.options.distrust) as digests:
        result = unchanged(job, progress, digests)
        if result is None:
            print_plan(job, as_json=as_json, alone=False)
            result = _compiled(job, progress, digests)
        else:
            click.echo(job.table(), err=as_json)
    click.echo(result_json(result) if as_json else summary(result, job.checkpoint.path))
    if job.demo:
        progress.say(f"{DEMO_NOTE}; the bundle is marked as a demo")


def checked_job(
    progress: ConsoleProgress,
    *,
    checkpoint: str | None,
    budgets_file: Path | None,
    ignore_tensors: tuple[str, ...],
    ignore_config: tuple[str, ...],
    **rest: Any,
) -> ExportJob:
    """The request of a command line, as far as it can be checked without the machine; warnings are said."""
    folder = resolve_checkpoint(checkpoint, os.environ)
    demo = folder is None
    if demo:
        progress.say(DEMO_NOTE)
    opened = Checkpoint.open(
        folder or demo_checkpoint(),
        budgets_file=budgets_file,
        ignore_tensors=ignore_tensors,
        ignore_config=ignore_config,
    )
    for warning in opened.warnings:
        progress.say(warning)
    job = plan_job(opened, _library_options(opened, rest), demo=demo)
    for note in job.notes:
        progress.say(note)
    check_destination(job)
    flavour(job.product.name).check_targets(job.capabilities)
    if job.product.experimental:
        progress.say(f"{job.product.called} is experimental: nobody has run a build with it")
    if job.ops.note:
        progress.say(job.ops.note)
    return job


def print_plan(job: ExportJob, *, as_json: bool, alone: bool) -> None:
    """Print what fits and what the run takes, and refuse what cannot end.

    With `as_json` standard output is a program's: the plan goes there as JSON where it is `alone`, else to standard
    error.
    """
    machine = this_machine(job.options.output, min(job.checkpoint.shards, default=None))
    found = forecast(job, machine, carried_over(job))
    if as_json and alone:
        click.echo(plan_json(job, found))
    else:
        lines = (job.table(), found.carried.text(job), found.text())
        click.echo("\n".join(line for line in lines if line), err=as_json)
    check_fit(job)
    check_machine(found, job)


def _compiled(job: ExportJob, progress: ConsoleProgress, digests: Digests) -> ExportResult:
    digests.begin(job.checkpoint.shards)
    # torch takes seconds to import; neither a plan nor a bundle that is there already needs it
    from elastic_export.compile import export  # noqa: PLC0415

    return export(job, progress, command=sys.argv, digests=digests)


def check_fit(job: ExportJob) -> None:
    """Refuse, as the request says, what fits no card: BuildError with `--require-fit` where anything does not fit,
    else InputError where a target has nothing.
    """
    # First, so that whoever asks for it hears the same of one budget that does not fit and of all.
    if job.options.require_fit and (misfits := job.misfits()):
        raise BuildError(
            "--require-fit",
            expected="every budget to fit every target",
            found="; ".join(misfits),
            todo="ask for a smaller budget, context or batch",
        )
    job.check_fit()


def _library_options(checkpoint: Checkpoint, given: dict[str, Any]) -> ExportOptions:
    """The command line's words as the library's."""
    for name in ("budget", "target"):
        if not given[name]:
            known = "all or " + ",".join(checkpoint.budgets) if name == "budget" else "GPU classes such as rtx5080"
            raise InputError(f"--{name}", expected=known, found="nothing", todo=f"add --{name}")
    contexts = _contexts(given["max_context"])
    return ExportOptions(
        budgets=given["budget"],
        targets=given["target"],
        output=given["output"] or Path("engines") / checkpoint.name,
        weights=given["weights"],
        ops=given["ops"],
        plugins=given["plugins"],
        flavour=given["flavour"],
        precision=given["precision"],
        quantise=given["quantise"],
        max_tokens=max(1, min(MAX_TOKENS, *contexts)) if given["max_tokens"] is None else given["max_tokens"],
        max_contexts=contexts,
        max_batch=given["max_batch"],
        logits=given["logits"],
        external_weights=given["external_weights"],
        verify=not given["no_verify"],
        add=given["add"],
        force=given["force"],
        require_fit=given["require_fit"],
        allow_unfit=given["allow_unfit"],
        allow_oversize=given["allow_oversize"],
        allow_short=given["allow_short"],
        distrust=given["distrust"],
        jobs=given["jobs"],
        debug=given["debug"],
    )


_NUMBER = re.compile("[0-9]{1,20}")  # `int` takes 1_6 too, and fails on thousands of digits


def _contexts(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(map(_NUMBER.fullmatch, parts)):
        raise InputError(
            "--max-context",
            expected="a number of tokens, or several: 4096,16384",
            found=repr(text if len(text) <= 80 else text[:80] + "…"),
            todo="write plain numbers",
        )
    return tuple(map(int, parts))
