"""The program of small kernels with known faults, shim_probe.cu."""

from __future__ import annotations

from pathlib import Path

from mamba2_mixer.testing.runner import SHIM, HostBuild


def build_probe(build: HostBuild, objects: dict[str, Path], folder: Path) -> Path:
    """With the shim of `objects`, which are of the same build."""
    source = str(Path(__file__).with_suffix(".cu"))
    fresh = build.compile([source], folder)
    return build.link([*(objects[source] for source in SHIM), fresh[source]], folder / "shim_probe")
