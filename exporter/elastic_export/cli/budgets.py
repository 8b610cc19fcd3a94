"""`elastic-export budgets`: find the budgets of checkpoints that somebody else's script cut, or have some proposed."""

from __future__ import annotations

import json
from pathlib import Path

import click

from elastic_export.checkpoint.derive import derive
from elastic_export.cli.lenient import lenient_options
from elastic_export.cli.propose import propose
from elastic_export.cli.whole_file import write_whole


@click.group()
def budgets() -> None:
    """Work with budget files."""


@budgets.command("derive")
@click.option("--parent", required=True, type=click.Path(path_type=Path), help="The elastic parent's folder.")
@click.option(
    "--sliced",
    "sliced",
    required=True,
    multiple=True,
    type=click.Path(path_type=Path),
    help="A cut checkpoint; repeatable.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Write here instead of standard output.")
@lenient_options
def derive_command(
    parent: Path,
    sliced: tuple[Path, ...],
    output: Path | None,
    ignore_tensors: tuple[str, ...],
    ignore_config: tuple[str, ...],
) -> None:
    """Find the budgets of checkpoints that were cut already.

    Every tensor is proved byte-equal to our slice of the parent; the budget file is printed.
    """
    document = derive(
        parent,
        list(sliced),
        ignore_tensors=ignore_tensors,
        ignore_config=ignore_config,
        warn=lambda text: click.echo(f"note: {text}", err=True),
    )
    text = json.dumps(document, indent=1) + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        write_whole(output, text, "--output")
        click.echo(f"wrote {output}", err=True)


budgets.add_command(propose)
