"""`elastic-export plan`: what an export would do, and how to share it out among machines."""

from __future__ import annotations

import json
from typing import Any

import click

from elastic_export.cli.export import check_fit, checked_job, export_options, print_plan
from elastic_export.cli.terminal import ConsoleProgress
from elastic_export.plan.job import ExportJob
from elastic_runtime.fit.targets import select_targets


@click.command()
@export_options
@click.option("--matrix", is_flag=True, help="Print the jobs as one line of JSON, for `strategy.matrix` of a workflow.")
@click.option(
    "--by",
    type=click.Choice(["budget", "target"]),
    default="budget",
    show_default=True,
    help="What --matrix shares out: a job each.",
)
def plan(matrix: bool, by: str, as_json: bool, dry_run: bool, **given: Any) -> None:
    """Print what fits and what an export would take.

    The same as an export's --dry-run, with its options. With --matrix it prints the jobs of several machines, as
    {"include": [{"name": …, "budget": …, "target": …}, …]}. Each is an export of its own; `merge` makes one bundle of
    theirs.
    """
    job = checked_job(ConsoleProgress(), **given)
    if matrix:
        check_fit(job)
        click.echo(json.dumps({"include": matrix_of(job, by)}))
    else:
        print_plan(job, as_json=as_json, alone=True)


def matrix_of(job: ExportJob, by: str) -> list[dict[str, str]]:
    """The jobs: `name` is one that files and artifacts can have, `budget` and `target` are options of an export.

    Targets of one compute capability stay together, since they share engines; so do the contexts of a target.
    """
    budgets = ",".join(job.requested)
    texts = _texts(job)
    targets = ",".join(texts.values())
    if by == "budget":
        jobs = [{"budget": name, "target": targets} for name in job.requested]
        names = [budget.name for budget in job.budgets]
    else:
        groups = dict.fromkeys(tuple(target.name for target in engine.targets) for engine in job.engines)
        jobs = [{"budget": budgets, "target": ",".join(texts[name] for name in group)} for group in groups]
        names = ["-".join(group) for group in groups]
    return [{"name": name, **shared} for name, shared in zip(names, jobs, strict=True)]


def _texts(job: ExportJob) -> dict[str, str]:
    """What --target takes, by the target's name: that of a described one (`sm89:24GiB`) describes it no more."""
    given = (text.strip() for text in job.options.targets.split(","))
    return {select_targets(text)[0].name: text for text in given if text}
