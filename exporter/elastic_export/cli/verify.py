"""`elastic-export verify`: replay a bundle's golden run on this machine."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--budget", default="auto", help="Replay this one alone, or one form of it (6b.int8).  [default: all]")
@click.option("--require", type=click.Choice(["engine"]), help="Exit 1 where an engine could not be run.")
@click.option(
    "--weights-folder",
    type=click.Path(path_type=Path),
    help="Where the shards of a bundle with external weights are.",
)
@click.option(
    "--plugins",
    type=click.Path(path_type=Path),
    help="Folder of plugin libraries.  [default: the installed elastic-plugins]",
)
@click.option(
    "--trust-engine", is_flag=True, help="Run the plugin libraries inside engines: you know who made the bundle."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def verify(
    bundle: Path,
    budget: str,
    require: str | None,
    weights_folder: Path | None,
    plugins: Path | None,
    trust_engine: bool,
    as_json: bool,
) -> None:
    """Check all files of a bundle and replay its golden runs.

    Every digest is compared. ONNX files run on the CPU, engines on a card of their class, where there is one.
    """
    from elastic_runtime.verify.bundle_verification import verify_bundle  # noqa: PLC0415  # onnxruntime is needed here only

    def say(text: str) -> None:
        click.echo(text, err=True)

    report = verify_bundle(
        bundle,
        budget=budget,
        require_engine=require == "engine",
        say=say,
        external=weights_folder,
        plugins=plugins,
        trust_engine=trust_engine,
    )
    click.echo(report.to_json() if as_json else report.text())
    raise SystemExit(0 if report.passed else 1)
