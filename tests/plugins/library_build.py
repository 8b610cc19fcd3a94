"""libelastic_plugins.so as CMake builds it, and what ptxas says of its kernels meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from mamba2_mixer.testing.runner import PLUGINS

needs_nvcc = pytest.mark.skipif(
    shutil.which("nvcc") is None or shutil.which("cmake") is None,
    reason="nvcc or cmake was not found: libelastic_plugins.so was not built",
)
#: One worker builds it.
one_worker = pytest.mark.xdist_group("plugin library")
#: Where TensorRT's headers are; without them the library has no plugins, only its C interface.
HEADERS = os.environ.get("TENSORRT_RTX_ROOT") or os.environ.get("TENSORRT_ROOT")
#: The library is built for it alone, with PTX; the compile gate knows the others.
ARCHITECTURE = 120
#: Of the small library beside it: the architecture whose kernels take least time to compile.
SINGLE = 75
LIBRARY, REPORT, INSTALLED = "libelastic_plugins.so", "report.txt", "installed/elastic_plugins"
#: Programs that ask the built plugins what TensorRT would.
PROBES = ("plugin_probe", "attention_probe")


def header_versions() -> list[Path]:
    """The file in which TensorRT's headers say what they are: another SDK may come to the same place."""
    folders = [Path(HEADERS), Path(HEADERS, "include")] if HEADERS else []
    return [path for folder in folders if (path := folder / "NvInferVersion.h").is_file()]


def cmake(*words: str, environment: dict[str, str] | None = None) -> str:
    """What a successful command says."""
    done = subprocess.run(["cmake", *words], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def build_library(folder: Path) -> None:
    """Put the library there, where TensorRT's headers are the probes beside it, the words of the compilers, and what is
    installed of it and of a small one. nvcc takes longer than all tests of them: it runs once for all.

    The options for device code must be those of `resources.measure`, which writes the table that the words must agree
    with.
    """
    probes = PROBES if HEADERS else ()
    options = (f"-DELASTIC_ARCHITECTURES={ARCHITECTURE}", f"-DELASTIC_SINGLE_ARCHITECTURES={SINGLE}")
    prefix, into = INSTALLED.split("/")
    with tempfile.TemporaryDirectory() as build:
        environment = os.environ | {"CUDAFLAGS": "-Xptxas=-v"}
        cmake("-S", str(PLUGINS), "-B", build, *options, f"-DELASTIC_LIBRARY_FOLDER={into}", environment=environment)
        # One after the other: what ptxas says of a kernel is several lines.
        (folder / REPORT).write_text(cmake("--build", build, "--target", "libraries", *probes))
        for name in (LIBRARY, *probes):
            shutil.copy(Path(build) / name, folder)
        cmake("--install", build, "--component", "libraries", "--strip", "--prefix", str(folder / prefix))
