"""`elastic-export report`: a bundle as one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from elastic_export.bundle.beside import own_path
from elastic_export.cli.whole_file import check_outside, write_whole
from elastic_export.report.page import page_of
from elastic_runtime.bundle import Bundle

if TYPE_CHECKING:
    from elastic_export.evaluate.result import Evaluation


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--evaluation",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What `evaluate --json` wrote: the loss of each budget.",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False),
              help="The page.  [default: BUNDLE.html beside the bundle]")  # fmt: skip
def report(bundle: Path, output: Path | None, evaluation: Path | None) -> None:
    """Write one HTML page about a bundle.

    What fits which card, loss where it was measured, errors, sizes, what was not run. The page needs nothing beside it.
    """
    check_outside("--output", output, bundle)
    page = page_of(Bundle.open(bundle), None if evaluation is None else _read(evaluation))
    folder = own_path(bundle)
    file = output or folder.with_name(f"{folder.name}.html")
    write_whole(file, page, "--output")
    click.echo(str(file))


def _read(file: Path) -> Evaluation:
    from elastic_export.evaluate.result import Evaluation  # noqa: PLC0415  # imports torch

    return Evaluation.read(file)
