"""`elastic-export plugins build`: the libraries that go into engines, compiled here."""

from __future__ import annotations

from pathlib import Path

import click

from elastic_export.plan.ops_modes import built_folder
from elastic_runtime.errors import InputError


@click.group()
def plugins() -> None:
    """Work with the plugin libraries of engines."""


@plugins.command("build")
@click.option("--headers", type=click.Path(path_type=Path), help="Folder of TensorRT's headers, or of an RTX SDK.")
@click.option(
    "--fetch-headers",
    "repository",
    is_flag=False,
    flag_value="",
    metavar="[URL]",
    help="Have git fetch NVIDIA's public headers, at one commit, from its repository or a mirror.",
)
@click.option("--arch", metavar="N[,N…]", help="CUDA architectures, such as 89,120.  [default: those of all targets]")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder that they are written to.  [default: where exports look]"
)
def build_command(headers: Path | None, repository: str | None, arch: str | None, output: Path | None) -> None:
    """Compile the plugin libraries with nvcc.

    Exports put them into engines where elastic-plugins is not installed. TensorRT's headers are needed as well.
    """
    from elastic_export.engine.plugin_build import (  # noqa: PLC0415  # the op's contract, hence numpy
        ARCHITECTURES,
        Headers,
        build_plugins,
    )

    folder = output or built_folder()
    if folder is None:
        raise InputError("--output", expected="a folder, for there is no home", found="nothing", todo="name one")
    names = ARCHITECTURES if arch is None else tuple(dict.fromkeys(arch.split(",")))
    built = build_plugins(folder, Headers(headers, repository), names, lambda text: click.echo(text, err=True))
    for library in built.libraries:
        architectures = ",".join(library.architectures)
        click.echo(f"{folder / library.file}  {library.size} bytes  {architectures}  TensorRT headers {built.abi}")
