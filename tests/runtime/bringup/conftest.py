"""A card for the processes of a bring-up: stand-ins for driver and bindings whose engine is the bundle's own model
(tests/stand_in).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from changed_bundle import only_small
from rtx_stand_in import FOLDER


@pytest.fixture(scope="session")
def small_bundle(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's smallest budget alone."""
    bundle = tmp_path_factory.mktemp("small") / "bundle"
    shutil.copytree(demo_bundle, bundle)
    only_small(bundle)
    return bundle


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-ins for libcuda and NVML."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in of the driver")
    library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    source = Path(__file__).parents[1] / "driver" / "fake_cuda.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-std=c11", "-O1", "-o", library, source], check=True)
    shutil.copy(library, library.with_name("libnvidia-ml.so.1"))
    return library.parent


@pytest.fixture
def stand_in_card(driver: Path, small_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Processes that are started have a card, of which FAKE_CAPABILITY says the class, and its engine is the bundle's
    model. Gives the bundle.
    """
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("STAND_IN_BUNDLE", str(small_bundle))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER), *(path for path in sys.path if path)]))
    return small_bundle


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Write a program of a few lines of sh, which is found before any other of its name: in place of NVIDIA's."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def write(name: str, body: str) -> Path:
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
        return folder / name

    return write
