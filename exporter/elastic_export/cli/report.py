"""`elastic-export report`: a bundle as one page."""

from __future__ import annotations

from pathlib import Path

import click

from elastic_export.report.page import page_of
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False),
              help="The page.  [default: BUNDLE.html beside the bundle]")  # fmt: skip
def report(bundle: Path, output: Path | None) -> None:
    """Write a page about a bundle: what fits which card, errors, sizes, and what nobody has run yet.

    One HTML file that needs nothing beside it.
    """
    page = page_of(Bundle.open(bundle))
    folder = bundle.resolve()
    file = output or folder.with_name(f"{folder.name}.html")
    beside = file.with_name(f".{file.name}.new")
    try:
        beside.write_text(page, "utf-8")
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(
            str(file),
            expected="a file that can be written",
            found=error.strerror or str(error),
            todo="name another place with --output",
        ) from error
    click.echo(str(file))
