"""Files of the checkpoint in the bundle: whatever happens, the checkpoint keeps its bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from elastic_export.bundle import place as module
from elastic_export.bundle.digests import Digests
from elastic_export.bundle.place import duplicate, place
from elastic_runtime.errors import BuildError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint" / "shard"
    path.parent.mkdir()
    path.write_bytes(b"w" * 1000)
    return path


def put(source: Path, stage: Path) -> None:
    options = {"digests": Digests(), "trust": True, "say": print, "old": None, "old_folder": stage.parent / "none"}
    place(source, stage, "weights/shard", **options)  # type: ignore[arg-type]


def test_a_second_place_of_one_name_is_refused_and_the_checkpoint_keeps_its_bytes(tmp_path: Path, source: Path) -> None:
    put(source, tmp_path / "stage")
    assert (tmp_path / "stage/weights/shard").samefile(source)
    with pytest.raises(BuildError, match=r"bundle file weights/shard: expected one file of that name, found a second"):
        put(source, tmp_path / "stage")
    assert source.read_bytes() == b"w" * 1000


def test_another_file_does_not_come_through_the_link_of_the_first(tmp_path: Path, source: Path) -> None:
    other = source.with_name("other")
    other.write_bytes(b"o" * 10)
    put(source, tmp_path / "stage")
    with pytest.raises(BuildError, match="bundle file weights/shard"):
        put(other, tmp_path / "stage")
    assert (source.read_bytes(), other.read_bytes()) == (b"w" * 1000, b"o" * 10)


@pytest.mark.parametrize("way", ["_clone", "_copy"])
def test_no_way_of_writing_goes_through_a_link(tmp_path: Path, source: Path, way: str) -> None:
    other, link = tmp_path / "other", tmp_path / "link"
    other.write_bytes(b"o" * 10)
    write: Callable[[Path, Path], object] = getattr(module, way)
    for make in (link.hardlink_to, link.symlink_to):
        make(source)
        with pytest.raises(FileExistsError):
            write(other, link)
        link.unlink()
    assert source.read_bytes() == b"w" * 1000


def test_an_engine_is_not_duplicated_over_a_file(tmp_path: Path, source: Path) -> None:
    engine, link = tmp_path / "engine", tmp_path / "link"
    engine.write_bytes(b"e")
    link.hardlink_to(source)
    with pytest.raises(FileExistsError):
        duplicate(engine, link)
    assert source.read_bytes() == b"w" * 1000
