"""Engine files that are not what they say."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from elastic_export.engine.header import EngineHeader, check_header, read_header
from elastic_runtime.errors import BuildError


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
        ({"length": 20}, "expected a TensorRT-RTX engine, found 20 bytes"),
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
