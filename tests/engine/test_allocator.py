"""The build process's allocator: preloaded where its package is whole, left out where it is not."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from elastic_export.engine import allocator
from elastic_export.engine.allocator import LIBRARIES, PRELOADED, allocator_links
from elastic_export.engine.build_folder import LIBRARY_FOLDER, lay_libraries
from elastic_export.engine.builder import child_environment

#: Prints the library that malloc is called in.
WHOSE_MALLOC = """
import ctypes
address = ctypes.cast(ctypes.CDLL(None).malloc, ctypes.c_void_p).value
for line in open("/proc/self/maps"):
    begin, end = (int(part, 16) for part in line.split()[0].split("-"))
    if begin <= address < end:
        print(line.split()[-1])
"""


def test_the_build_process_allocates_with_it(tmp_path: Path) -> None:
    lay_libraries(tmp_path / LIBRARY_FOLDER, "tensorrt_rtx")
    environment = child_environment(os.environ)
    command = [sys.executable, "-c", WHOSE_MALLOC]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).name.startswith(PRELOADED)
    assert done.stderr == ""  # the loader complains there of what it cannot preload


def test_without_its_package_the_process_has_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "DISTRIBUTION", "no-such-distribution")
    assert allocator_links() == {}
    assert "LD_PRELOAD" not in child_environment({})
    lay_libraries(tmp_path / LIBRARY_FOLDER, "tensorrt_rtx")
    assert not {path.name for path in (tmp_path / LIBRARY_FOLDER).iterdir()} & set(LIBRARIES)


@pytest.mark.parametrize("kept", [(), LIBRARIES[:1], LIBRARIES[1:]])
def test_a_package_that_is_not_whole_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: tuple[str, ...]
) -> None:
    for name in kept:
        (tmp_path / name).touch()
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [installed(tmp_path, name) for name in LIBRARIES])
    assert allocator_links() == {}


def test_a_package_that_records_no_files_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "files", lambda name: None)
    assert allocator_links() == {}


def installed(folder: Path, name: str) -> importlib.metadata.PackagePath:
    path = importlib.metadata.PackagePath(name)
    path.dist = importlib.metadata.PathDistribution(folder / "x.dist-info")
    return path
