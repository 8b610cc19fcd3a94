"""`elastic-export merge`: one bundle of several that were made apart."""

from __future__ import annotations

from pathlib import Path

import click

from elastic_export.cli.summary import contents
from elastic_export.cli.terminal import ConsoleProgress


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="BUNDLE…")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Bundle folder.")
@click.option("--force", is_flag=True, help="Replace an output folder that is not a bundle.")
def merge(bundles: tuple[Path, ...], output: Path, force: bool) -> None:
    """Make one bundle of several that were built apart.

    It has the budgets and engines of all BUNDLEs, which are of one checkpoint and one version. What two of them both
    have must be the same bytes. The bundles stay as they are.
    """
    from elastic_export.bundle.merge import merge_bundles  # noqa: PLC0415  # numpy and more, which --help needs not

    with ConsoleProgress().step("merge", what=f"{len(bundles)} bundles"):
        _, manifest = merge_bundles(bundles, output, force=force, say=ConsoleProgress().say)
    for budget in manifest.budgets:
        engines = "; ".join(f"{engine.target} at {engine.max_context}, {engine.ops}" for engine in budget.engines)
        click.echo(f"{budget.name}: {engines or 'no engine'}")
    click.echo(f"bundle {output}: {contents(output, manifest)}")
