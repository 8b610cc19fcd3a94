"""TensorRT for RTX: its allocator, left out where the package is not whole; engine files that are not what they say."""

from __future__ import annotations

import importlib.metadata
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from elastic_export.engine import rtx
from elastic_export.engine.build_folder import LIBRARY_FOLDER, lay_libraries
from elastic_export.engine.flavour import flavour
from elastic_export.engine.process import child_environment
from elastic_export.engine.rtx import (
    LIBRARIES,
    PRELOADED,
    EngineHeader,
    allocator_links,
    check_header,
    is_preloaded,
    read_header,
)
from elastic_runtime.errors import BuildError

RTX = flavour("tensorrt-rtx")
#: Prints the library that malloc is called in, and what the process knows of it.
WHOSE_MALLOC = """
import ctypes
address = ctypes.cast(ctypes.CDLL(None).malloc, ctypes.c_void_p).value
for line in open("/proc/self/maps"):
    begin, end = (int(part, 16) for part in line.split()[0].split("-"))
    if begin <= address < end:
        print(line.split()[-1])
from elastic_export.engine.rtx import is_preloaded
print(is_preloaded())
"""


def test_the_build_process_allocates_with_it(tmp_path: Path) -> None:
    lay_libraries(tmp_path / LIBRARY_FOLDER, RTX.name)
    environment = child_environment(os.environ, RTX.preloads())
    command = [sys.executable, "-c", WHOSE_MALLOC]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout.split()[0]).name.startswith(PRELOADED)
    assert done.stdout.split()[1] == "True"
    assert done.stderr == ""  # the loader complains there of what it cannot preload


def test_this_process_does_not() -> None:
    assert not is_preloaded()


def test_without_its_package_nothing_is_preloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtx, "ALLOCATOR", "no-such-distribution")
    assert allocator_links() == {}
    assert "LD_PRELOAD" not in child_environment({}, RTX.preloads())
    lay_libraries(tmp_path / LIBRARY_FOLDER, RTX.name)
    assert not {path.name for path in (tmp_path / LIBRARY_FOLDER).iterdir()} & set(LIBRARIES)


def test_the_full_tensorrt_has_none() -> None:
    assert flavour("tensorrt").preloads() == ()


@pytest.mark.parametrize("kept", [(), LIBRARIES[:1], LIBRARIES[1:]])
def test_a_package_without_its_libraries_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: tuple[str, ...]
) -> None:
    for name in kept:
        (tmp_path / name).touch()
    record(monkeypatch, [installed(tmp_path, name) for name in LIBRARIES])
    assert allocator_links() == {}


def test_a_package_that_records_half_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LIBRARIES:
        (tmp_path / name).touch()
    record(monkeypatch, [installed(tmp_path, PRELOADED)])
    assert allocator_links() == {}
    record(monkeypatch, [installed(tmp_path, name) for name in LIBRARIES])
    assert set(allocator_links()) == set(LIBRARIES)


def test_a_package_that_records_no_files_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    record(monkeypatch, None)
    assert allocator_links() == {}


@pytest.mark.parametrize("records", ["x", "\udcff"])
def test_damaged_records_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: str) -> None:
    folder = tmp_path / "tbb-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: tbb\nVersion: 1\n")
    (folder / "RECORD").write_bytes(f"{PRELOADED},,{records}\n".encode(errors="surrogateescape"))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"invalid literal|can't decode"):
        importlib.metadata.files(rtx.ALLOCATOR)
    assert allocator_links() == {}


def record(monkeypatch: pytest.MonkeyPatch, files: list[importlib.metadata.PackagePath] | None) -> None:
    monkeypatch.setattr(importlib.metadata, "files", lambda name: files)


def installed(folder: Path, name: str) -> importlib.metadata.PackagePath:
    path = importlib.metadata.PackagePath(name)
    path.dist = importlib.metadata.PathDistribution(folder / "x.dist-info")
    return path


def engine(folder: Path, *, size: int = 100, magic: bytes = b"vtrt", length: int = 100, build: int = 116) -> Path:
    head = struct.pack("<4s12xQ4B", magic, size, 1, 7, 1, build)
    path = folder / "x.engine"
    path.write_bytes((head + bytes(length))[:length])
    return path


def test_a_whole_engine(tmp_path: Path) -> None:
    assert check_header(engine(tmp_path), "1.7.1.116") == EngineHeader(100, (1, 7, 1))


@pytest.mark.parametrize(("version", "byte"), [("1.7.1.300", 300 % 256), ("1.7.1.300", 255), ("1.7.1", 0)])
def test_the_number_of_the_build_is_not_compared(tmp_path: Path, version: str, byte: int) -> None:
    """It need not fit a byte, and nobody says what stands there then."""
    assert check_header(engine(tmp_path, build=byte), version).version == (1, 7, 1)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"length": 99}, "expected 100 bytes, found 99"),
        ({"length": 20}, r"expected a TensorRT-RTX engine, found 20 bytes.* pip install 'tensorrt-rtx>="),
        ({"magic": b"ftrt"}, "expected a TensorRT-RTX engine, found 64 bytes starting b'ftrt'"),
    ],
)
def test_damage_is_found(tmp_path: Path, change: dict[str, int], text: str) -> None:
    path = engine(tmp_path, **change)  # type: ignore[arg-type]
    with pytest.raises(BuildError, match=text):
        check_header(path, "1.7.1.116")


@pytest.mark.parametrize("version", ["1.7.2.0", "1.8.1.116", "2.7.1.116"])
def test_an_engine_of_another_version(tmp_path: Path, version: str) -> None:
    with pytest.raises(BuildError, match=rf"an engine of TensorRT-RTX {version[:5]}, found one of 1\.7\.1\. "):
        check_header(engine(tmp_path), version)
    assert read_header(engine(tmp_path)).size == 100
