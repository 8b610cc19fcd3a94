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
#: The library is built for it alone; the compile gate knows the others.
ARCHITECTURE = 120
LIBRARY, REPORT = "libelastic_plugins.so", "report.txt"


def cmake(*words: str, environment: dict[str, str] | None = None) -> str:
    """What a successful command says."""
    done = subprocess.run(["cmake", *words], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def build_library(folder: Path) -> None:
    """Put the library there, and the words of its compilers.

    The options for device code must be those of `resources.measure`, which writes the table that the words must agree
    with.
    """
    options = (f"-DELASTIC_ARCHITECTURES={ARCHITECTURE}-real",)
    with tempfile.TemporaryDirectory() as build:
        cmake("-S", str(PLUGINS), "-B", build, *options, environment=os.environ | {"CUDAFLAGS": "-Xptxas=-v"})
        (folder / REPORT).write_text(cmake("--build", build))
        shutil.copy(Path(build) / LIBRARY, folder)
