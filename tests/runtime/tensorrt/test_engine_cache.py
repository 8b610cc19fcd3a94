"""What is kept of engines outside of bundles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from elastic_runtime.format.manifest import FileEntry, Manifest, Status
from elastic_runtime.tensorrt.engine_cache import (
    cache_folder,
    forget,
    kernels_file,
    remember,
    remembered,
    unkept,
    write_kernels,
)

STATUS = Status("verified", "GeForce RTX 5090", "2026-01-31")


def test_a_verification_is_kept_by_engine_and_card(tmp_path: Path, manifest: Manifest) -> None:
    engine, other = manifest.budgets[0].engines[0], manifest.budgets[1].engines[0]
    files = tuple(FileEntry(f.path, f.size, f"{i:064d}"[::-1]) for i, f in enumerate(manifest.files))
    manifest = replace(manifest, files=files)
    card = str(STATUS.card)
    assert remembered(tmp_path, manifest, engine, card) is None
    remember(tmp_path / "new", manifest, engine, STATUS)
    assert remembered(tmp_path / "new", manifest, engine, card) == STATUS
    assert remembered(tmp_path / "new", manifest, other, card) is None
    assert remembered(tmp_path / "new", manifest, engine, "GeForce RTX 4090") is None
    (kept,) = (tmp_path / "new").iterdir()
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"sha256": "0" * 64}))  # of another engine
    assert remembered(tmp_path / "new", manifest, engine, card) is None
    kept.write_text("no JSON")
    assert remembered(tmp_path / "new", manifest, engine, card) is None
    forget(tmp_path / "new", manifest, engine, card)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_that_takes_nothing_is_no_error(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "file").write_text("")
    remember(tmp_path / "file", manifest, manifest.budgets[0].engines[0], STATUS)
    forget(tmp_path / "file", manifest, manifest.budgets[0].engines[0], str(STATUS.card))


def test_kernels_that_could_not_be_kept_are_told_of_before_they_are_compiled(tmp_path: Path) -> None:
    file = tmp_path / "new" / "kernels" / "a.cache"
    assert unkept(file) == ""
    assert list((tmp_path / "new" / "kernels").iterdir()) == []
    (tmp_path / "taken").write_text("")
    assert unkept(tmp_path / "taken" / "a.cache") == (
        f"warning: {tmp_path / 'taken'}: compiled kernels cannot be kept there (File exists), so every start compiles "
        "them again: name a folder that you can write with ELASTIC_CACHE"
    )


def test_kernels_that_are_there_serve_on_a_disk_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", read_only)
    assert "(Read-only file system), so every start compiles" in unkept(tmp_path / "a.cache")
    (tmp_path / "a.cache").write_bytes(b"kernels")
    assert unkept(tmp_path / "a.cache") == ""


def test_without_a_home_nothing_is_kept_and_nothing_fails(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("ELASTIC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)
    folder, engine = cache_folder(None), manifest.budgets[0].engines[0]
    remember(folder, manifest, engine, STATUS)
    assert remembered(folder, manifest, engine, str(STATUS.card)) is None
    assert not kernels_file(folder, manifest, engine, str(STATUS.card)).is_file()
    assert "name a folder that you can write" in unkept(kernels_file(folder, manifest, engine, str(STATUS.card)))
    write_kernels(kernels_file(folder, manifest, engine, str(STATUS.card)), b"kernels")
    forget(folder, manifest, engine, str(STATUS.card))


def test_where_compiled_kernels_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder(tmp_path) == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("ELASTIC_CACHE", raising=False)
    assert cache_folder(None) == tmp_path / "xdg" / "elastic-runtime" / "kernels"
    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path / "own"))
    assert cache_folder(None) == tmp_path / "own" / "kernels"
