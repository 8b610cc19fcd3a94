from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from elastic_export.bundle import exchange, place, staging
from elastic_export.bundle.beside import failed_report
from elastic_export.bundle.writer import BundleWriter
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError, InternalError
from elastic_runtime.format.manifest import FileEntry

ASKED = {"big": [("rtx5080", 1024)], "small": [("rtx5080", 1024)]}


def hidden(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_writes_a_bundle_that_opens_with_all_digests(tmp_path: Path, export: Callable) -> None:
    export(tmp_path / "deep" / "out", ASKED)
    bundle = Bundle.open(tmp_path / "deep" / "out", "digests")
    assert [b.name for b in bundle.budgets] == ["big", "small"]
    assert {f.path for f in bundle.manifest.files} == {
        "weights/model.safetensors",
        *(f"{b}/{f}" for b in ASKED for f in ("model.onnx", "weights.json", "rtx5080.engine")),
    }
    assert hidden(tmp_path / "deep") == []


def test_shards_are_hard_links_to_the_file_behind_the_symbolic_link(
    tmp_path: Path, export: Callable, shard: Path
) -> None:
    export(tmp_path / "out", ASKED)
    linked = tmp_path / "out" / "weights" / "model.safetensors"
    assert not linked.is_symlink()
    assert linked.samefile(shard.resolve())


@pytest.mark.parametrize("clone", [True, False])
def test_where_links_are_impossible_shards_are_cloned_or_copied_and_the_size_is_said(
    tmp_path: Path, export: Callable, monkeypatch: pytest.MonkeyPatch, clone: bool
) -> None:
    said: list[str] = []
    monkeypatch.setattr(place, "_link", lambda source, target: False)
    if clone:
        monkeypatch.setattr(place, "_clone", lambda source, target: target.write_bytes(source.read_bytes()) > 0)
    export(tmp_path / "out", ASKED, say=said.append)
    Bundle.open(tmp_path / "out", "digests")
    assert [line for line in said if "copying 0.00 GiB" in line] == [] if clone else said


def test_a_copied_shard_is_linked_from_the_older_bundle_the_second_time(
    tmp_path: Path, export: Callable, monkeypatch: pytest.MonkeyPatch, shard: Path
) -> None:
    link = place._link
    monkeypatch.setattr(place, "_link", lambda s, t: False if s == shard.resolve() else link(s, t))
    said: list[str] = []
    export(tmp_path / "out", ASKED, say=said.append)
    inode = (tmp_path / "out/weights/model.safetensors").stat().st_ino
    export(tmp_path / "out", ASKED, say=said.append)
    assert (tmp_path / "out/weights/model.safetensors").stat().st_ino == inode
    assert len(said) == 1


def test_same_export_twice_gives_the_same_bytes_and_keeps_the_files(
    tmp_path: Path, export: Callable, tree: Callable
) -> None:
    export(tmp_path / "out", ASKED)
    before, inode = tree(tmp_path / "out"), (tmp_path / "out/big/rtx5080.engine").stat().st_ino
    export(tmp_path / "out", ASKED)
    assert tree(tmp_path / "out") == before
    assert (tmp_path / "out/big/rtx5080.engine").stat().st_ino == inode


def test_a_damaged_old_file_is_not_linked_into_the_new_bundle(tmp_path: Path, export: Callable) -> None:
    export(tmp_path / "out", ASKED)
    engine = tmp_path / "out/big/rtx5080.engine"
    engine.write_bytes(b"X" + engine.read_bytes()[1:])
    export(tmp_path / "out", ASKED)
    Bundle.open(tmp_path / "out", "digests")


def test_a_new_export_holds_only_what_it_was_asked_for(tmp_path: Path, export: Callable) -> None:
    export(tmp_path / "out", ASKED)
    export(tmp_path / "out", {"small": [("rtx4090", 512)]})
    assert not (tmp_path / "out" / "big").exists()
    assert not (tmp_path / "out/small/rtx5080.engine").exists()


def test_an_error_in_the_block_leaves_the_old_bundle_and_nothing_beside_it(
    tmp_path: Path, export: Callable, tree: Callable
) -> None:
    export(tmp_path / "out", ASKED)
    before = tree(tmp_path / "out")

    def die(writer: BundleWriter) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "out", ASKED, text="new", before_finish=die)
    assert tree(tmp_path / "out") == before
    assert hidden(tmp_path) == []


def test_a_failed_first_export_leaves_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="build"), BundleWriter(tmp_path / "a" / "b" / "out"):
        raise ValueError("build")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_verification_leaves_its_report_and_no_bundle_and_a_good_export_removes_it(
    tmp_path: Path, export: Callable
) -> None:
    out = tmp_path / "new" / "out"

    def fail(bundle_writer: BundleWriter) -> None:
        assert bundle_writer.fail({"schema": "elastic-report/1", "budget": "6b"}) == failed_report(out)
        raise BuildError("verification of 6b", expected="an error below 1e-4", found="0.3")

    with pytest.raises(BuildError, match="verification"):
        export(out, ASKED, before_finish=fail)
    assert json.loads((tmp_path / "new" / "out.failed.json").read_text())["budget"] == "6b"
    assert not out.exists()
    export(out, ASKED)
    assert not failed_report(out).exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_for_a_link_is_not_tried_as_a_copy(
    tmp_path: Path, export: Callable, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code), str(target))

    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(place, "_clone", lambda source, target: pytest.fail("tried all the same"))
    with pytest.raises(BuildError, match="expected room for the bundle"):
        export(tmp_path / "out", ASKED)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_build_error_and_leaves_the_old_bundle(
    tmp_path: Path, export: Callable, tree: Callable, code: int
) -> None:
    export(tmp_path / "out", ASKED)
    before = tree(tmp_path / "out")

    def fill(writer: BundleWriter) -> None:
        raise OSError(code, os.strerror(code), "model.onnx")

    with pytest.raises(BuildError, match=r"expected room for the bundle, found .*\. Free some space") as error:
        export(tmp_path / "out", ASKED, text="new", before_finish=fill)
    assert error.value.exit_code == 1
    assert tree(tmp_path / "out") == before
    assert hidden(tmp_path) == []


def test_a_write_beyond_the_limit_of_a_file_really_happens(tmp_path: Path, export: Callable, tree: Callable) -> None:
    export(tmp_path / "out", ASKED)
    before, limits = tree(tmp_path / "out"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(BuildError, match="expected room for the bundle, found File too large"):
            export(
                tmp_path / "out",
                ASKED,
                before_finish=lambda w: (w.path / "big").joinpath("x").write_bytes(bytes(2 << 20)),
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert tree(tmp_path / "out") == before
    assert hidden(tmp_path) == []


def test_other_errors_of_the_machine_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), BundleWriter(tmp_path / "out"):
        (tmp_path / "no such file").read_bytes()


def test_a_file_system_without_exchange_is_said_and_works(
    tmp_path: Path, export: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    export(tmp_path / "out", ASKED)
    monkeypatch.setattr(exchange, "_exchange", lambda first, second: False)
    export(tmp_path / "out", ASKED, text="new", say=said.append)
    assert said[0].endswith("out: this file system cannot exchange folders in one step; moving the old one aside first")
    assert "new" in (tmp_path / "out/big/model.onnx").read_text()
    assert hidden(tmp_path) == []


def test_the_kernel_is_asked_to_exchange(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"was {name}").touch()
    assert exchange._exchange(tmp_path / "a", tmp_path / "b")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["was b"]
    with pytest.raises(FileNotFoundError):
        exchange._exchange(tmp_path / "a", tmp_path / "none")


def test_links_are_not_published(tmp_path: Path, export: Callable) -> None:
    with pytest.raises(InternalError, match="expected a plain file"):
        export(tmp_path / "out", ASKED, before_finish=lambda w: (w.path / "big" / "link").symlink_to("/etc/hostname"))
    assert not (tmp_path / "out").exists()


def test_a_manifest_no_consumer_would_open_is_not_published(tmp_path: Path, export: Callable) -> None:
    with pytest.raises(InternalError, match=r"files that the manifest lists, found big/model\.onnx"):
        export(tmp_path / "out", ASKED, before_finish=lambda w: (w.path / "big" / "model.onnx").unlink())
    assert not (tmp_path / "out").exists()


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(
    tmp_path: Path, export: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BundleWriter(tmp_path / "out") as living:
        (tmp_path / ".out.partial-999999999-0123abcd").mkdir()
        (tmp_path / ".out.partial-notes").mkdir()
        living_stage = living.path
        monkeypatch.setattr(staging.os, "getpid", lambda: 1)
        said: list[str] = []
        export(tmp_path / "out", ASKED, say=said.append)
        assert living_stage.is_dir()
    assert said == [f"{tmp_path}/.out.partial-999999999-0123abcd: removed, left over from a killed export"]
    assert hidden(tmp_path) == [".out.partial-notes"]


def test_a_bundle_moved_aside_by_a_killed_export_comes_back(tmp_path: Path, export: Callable, tree: Callable) -> None:
    export(tmp_path / "out", ASKED)
    before = tree(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / ".out.old-999999999-0123abcd")
    said: list[str] = []
    with BundleWriter(tmp_path / "out", say=said.append) as bundle_writer:
        assert bundle_writer.previous is not None
    assert tree(tmp_path / "out") == before
    assert "brought back" in said[0]


def test_external_weights_are_named_only(tmp_path: Path, shard: Path, export: Callable) -> None:
    manifest = export(tmp_path / "out", ASKED, before_finish=lambda writer: writer.name_external(shard))
    [entry] = manifest.external_weights
    assert (entry.path, entry.size) == ("model.safetensors", 8000)
    assert entry.sha256 == hashlib.sha256(shard.read_bytes()).hexdigest()


def test_where_the_second_rename_fails_the_old_bundle_is_put_back(
    tmp_path: Path, export: Callable, tree: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename, calls = tmp_path / "out", Path.rename, []
    export(out, ASKED, text="old")
    before = tree(out)

    def fails_once(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(exchange, "_exchange", lambda first, second: False)
    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(OSError, match="Input/output error"):
        export(out, ASKED, text="new")
    assert tree(out) == before
    assert hidden(tmp_path) == []


def test_where_the_old_bundle_cannot_be_put_back_it_is_said_where_it_is(
    tmp_path: Path, export: Callable, tree: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rename, said = tmp_path / "out", Path.rename, []
    export(out, ASKED, text="old")
    before = tree(out)

    def fails_from_now_on(self: Path, target: Path) -> Path:
        if target == out:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(exchange, "_exchange", lambda first, second: False)
        patch.setattr(Path, "rename", fails_from_now_on)
        with pytest.raises(OSError, match="Input/output error"):
            export(out, ASKED, text="new", say=said.append)
    (aside,) = tmp_path.glob(".out.old-*")
    assert said[-1] == f"{out}: the old bundle is at {aside}; the next export to this place brings it back"
    export(out, ASKED, text="old", say=said.append)
    assert tree(out) == before
    assert hidden(tmp_path) == []


def test_a_kept_file_that_is_another_one_by_now_is_no_part_of_a_bundle(
    tmp_path: Path, export: Callable, tree: Callable
) -> None:
    """Another export to the same place may exchange the older bundle between the look at a file and its link."""
    out = tmp_path / "out"
    manifest = export(out, {"big": [("rtx5080", 1024)]})
    engine, before = manifest.file("big/rtx5080.engine"), tree(out)

    def keep(entry: FileEntry) -> Callable[[BundleWriter], None]:
        return lambda writer: writer.keep(entry, "big/kept.engine")

    export(out, {"big": [("rtx5080", 1024)]}, before_finish=keep(engine))
    assert (out / "big/kept.engine").samefile(out / "big/rtx5080.engine")
    export(out, {"big": [("rtx5080", 1024)]})
    for entry, found in (
        (replace(engine, sha256="0" * 64), "another one, by another"),
        (replace(engine, path="x"), "none"),
    ):
        with pytest.raises(BuildError, match=f"expected the file of the manifest, found {found}.* Export again, when"):
            export(out, {"big": [("rtx5080", 1024)]}, before_finish=keep(entry))
        assert tree(out) == before
