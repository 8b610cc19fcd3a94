"""Digests beside the compile: never of a file that changed, never twice, never a wrong one from the memo."""

from __future__ import annotations

import hashlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from elastic_export.bundle import digests as module
from elastic_export.bundle.destination import writer_of
from elastic_export.bundle.digest_memo import DigestMemo, FileState, state_of, user_memo
from elastic_export.bundle.digests import Digests
from elastic_export.bundle.writer import BundleWriter
from elastic_export.cli.main import cli
from elastic_export.plan.job import ExportJob
from elastic_runtime.errors import InputError
from small_export import write_small

ASKED = {"big": [("rtx5080", 1024)], "small": [("rtx5080", 1024)]}
OLD = 1_700_000_000_000_000_000  # long ago, ns
NOW = OLD + 3_600_000_000_000
STATE = FileState(1, 2, 3, OLD)


@pytest.fixture
def old_shard(shard: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shard, not changed for long, and large enough to be remembered."""
    monkeypatch.setattr(module, "LEAST_REMEMBERED", 1)
    os.utime(shard, ns=(OLD, OLD))
    return shard


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are digested."""
    names, digest = list[str](), module.streamed_digest

    def counted(path: Path, **options: object) -> tuple[int, str]:
        names.append(path.name)
        return digest(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "streamed_digest", counted)
    return names


def digests(tmp_path: Path, *, distrust: bool = False) -> Digests:
    return Digests(DigestMemo(tmp_path / "cache"), distrust=distrust)


def change_under_the_old_time(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    with shard.open("r+b") as file:
        file.write(data)
    os.utime(shard, ns=(OLD, OLD))


def test_an_unchanged_shard_is_read_once_by_two_exports_and_every_file_of_a_bundle_once(
    tmp_path: Path, export: Callable, old_shard: Path, read: list[str]
) -> None:
    first = export(tmp_path / "one", ASKED, digests=digests(tmp_path))
    assert len(read) == len(first.files)
    assert read.count("blob") == 1
    second = export(tmp_path / "two", ASKED, digests=digests(tmp_path))
    assert second.to_json() == first.to_json()
    assert read.count("blob") == 1


@pytest.mark.parametrize("change", ["bytes", "time", "file"])
def test_a_shard_that_changed_is_read_again(
    tmp_path: Path, export: Callable, old_shard: Path, read: list[str], change: str
) -> None:
    export(tmp_path / "one", ASKED, digests=digests(tmp_path))
    blob = old_shard.resolve()
    if change == "bytes":
        blob.write_bytes(b"other " * 1000)
    elif change == "time":
        os.utime(blob, ns=(OLD, OLD + 1))
    else:
        (blob.parent / "new").write_bytes(b"Weights " * 1000)
        (blob.parent / "new").replace(blob)
        os.utime(blob, ns=(OLD, OLD))
    manifest = export(tmp_path / "two", ASKED, digests=digests(tmp_path))
    assert read.count("blob") == 2
    assert manifest.file("weights/model.safetensors").sha256 == hashlib.sha256(blob.read_bytes()).hexdigest()


def test_a_byte_changed_under_the_old_time_is_found_by_distrust_which_mends_the_memo(
    tmp_path: Path, export: Callable, old_shard: Path
) -> None:
    def sha256(name: str, *, distrust: bool) -> str:
        manifest = export(tmp_path / name, ASKED, digests=digests(tmp_path, distrust=distrust))
        return manifest.file("weights/model.safetensors").sha256

    before = sha256("one", distrust=False)
    change_under_the_old_time(old_shard)
    now = hashlib.sha256(old_shard.read_bytes()).hexdigest()
    assert (sha256("two", distrust=False), sha256("three", distrust=True)) == (before, now)
    assert sha256("four", distrust=False) == now


@pytest.mark.parametrize("asked", [[], ["--distrust"]])
def test_the_command_says_whether_a_remembered_digest_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: list[str], asked: list[str]
) -> None:
    def export(job: ExportJob, *_: object, digests: Digests, **__: object) -> None:
        with writer_of(job, print, digests) as writer:
            for shard in job.checkpoint.shards:
                writer.name_external(shard)
            assert all(entry.result() for entry in writer._external.values())
        raise KeyboardInterrupt

    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "LEAST_REMEMBERED", 1)
    monkeypatch.setattr("elastic_export.compile.export", export)
    folder = write_small(tmp_path / "c")
    for shard in folder.glob("*.safetensors"):
        os.utime(shard, ns=(OLD, OLD))
    request = ["--checkpoint", str(folder), "--budget", "small", "--target", "rtx5080", "--max-context", "64"]
    for _ in range(2):
        CliRunner().invoke(cli, [*request, "--max-tokens", "16", "--output", str(tmp_path / "out"), *asked])
    assert len(read) == (4 if asked else 2)


def test_what_is_kept_of_an_old_bundle_is_read_whatever_is_remembered(
    tmp_path: Path, export: Callable, old_shard: Path, read: list[str]
) -> None:
    out = tmp_path / "out"
    export(out, {"big": [("rtx5080", 1024)]}, digests=digests(tmp_path))
    os.utime(out / "big/rtx5080.engine", ns=(OLD, OLD))
    for _ in range(2):
        read.clear()
        export(out, {"small": [("rtx5080", 1024)]}, add=True, digests=digests(tmp_path))
        assert read.count("rtx5080.engine") == 2


@pytest.mark.parametrize("when", ["while it is read", "after it was read", "gone"])
def test_a_shard_that_changes_during_the_export_is_an_error_that_names_it(
    tmp_path: Path, export: Callable, tree: Callable, old_shard: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    out, blob, digest = tmp_path / "out", old_shard.resolve(), module.streamed_digest
    export(out, ASKED)
    before, read = tree(out), threading.Event()

    def changed(path: Path, **options: object) -> tuple[int, str]:
        result = digest(path, **options)  # type: ignore[arg-type]
        if path == blob:
            if when == "while it is read":
                change_under_the_old_time(blob)
                os.utime(blob, ns=(OLD, OLD + 1))
            read.set()
        return result

    def later(writer: BundleWriter) -> None:
        if when != "while it is read":
            assert read.wait(10)
            blob.unlink() if when == "gone" else os.utime(blob, ns=(OLD, OLD + 1))

    monkeypatch.setattr(module, "streamed_digest", changed)
    found = "none any more" if when == "gone" else "another size or time of change"
    with pytest.raises(InputError, match=rf"checkpoint/blob: expected the file as it was when .*, found {found}"):
        export(out, ASKED, digests=digests(tmp_path), text="new", before_finish=later)
    kept = {name for name in before if name != "weights/model.safetensors"}  # which is a link to the changed one
    assert {name: tree(out)[name] for name in kept} == {name: before[name] for name in kept}
    if when == "while it is read":
        assert not (tmp_path / "cache").exists()


def test_an_export_that_ends_early_waits_for_no_digest(
    tmp_path: Path, export: Callable, old_shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()

    def endless(path: Path, *, on_bytes: Callable[[int], None]) -> tuple[int, str]:
        try:
            begun.set()
            while True:
                on_bytes(1)
        finally:
            ended.set()

    def fail(writer: object) -> None:
        assert begun.wait(10)
        raise ValueError("the build")

    monkeypatch.setattr(module, "streamed_digest", endless)
    with pytest.raises(ValueError, match="the build"):
        export(tmp_path / "out", ASKED, digests=digests(tmp_path), before_finish=fail)
    assert ended.is_set()


def test_a_fresh_file_is_not_remembered_for_its_time_may_not_tell_the_next_change(tmp_path: Path) -> None:
    memo, file = DigestMemo(tmp_path / "cache"), tmp_path / "fresh"
    file.write_bytes(b"bytes")
    memo.remember(file, state_of(file), "a" * 64, begun=time.time_ns())
    assert memo.recall(file, state_of(file)) is None


def test_a_file_that_was_fresh_when_its_digest_began_is_not_remembered_however_long_that_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have changed while it was read, within one tick of its file system's clock."""
    shard, clock = tmp_path / "shard", [NOW]
    shard.write_bytes(b"bytes")
    os.utime(shard, ns=(NOW, NOW))

    def slow(file: Path, on_bytes: Callable[[int], None]) -> tuple[int, str]:
        clock[0] += 60_000_000_000
        return 5, "a" * 64

    monkeypatch.setattr(module, "LEAST_REMEMBERED", 1)
    monkeypatch.setattr(module, "streamed_digest", slow)
    monkeypatch.setattr(time, "time_ns", lambda: clock[0])
    for begun, kept in ((NOW, False), (NOW + 2_000_000_000, True)):
        clock[0], sums = begun, digests(tmp_path)
        assert sums.of_source(shard, "shard", trust=True).result().sha256 == "a" * 64
        sums.close()
        assert (DigestMemo(tmp_path / "cache").recall(shard, state_of(shard)) is not None) == kept


def test_nothing_is_remembered_where_there_is_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    monkeypatch.delenv("ELASTIC_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert user_memo() is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    memo = DigestMemo(tmp_path / "cache")
    memo.remember(tmp_path / "shard", STATE, "a" * 64, begun=NOW)
    assert memo.recall(tmp_path / "shard", STATE) is None


NAMES = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=60)
NUMBERS = st.integers(0, 2**63)
STATES = st.builds(FileState, NUMBERS, NUMBERS, NUMBERS, st.integers(0, OLD))
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(NAMES, STATES, DIGESTS, STATES)
def test_what_was_remembered_is_recalled_for_that_state_alone(
    name: str, state: FileState, digest: str, other: FileState
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        memo, file = DigestMemo(Path(folder)), Path("/weights") / name
        memo.remember(file, state, digest, begun=NOW)
        assert memo.recall(file, state) == digest
        assert memo.recall(file, other) == (digest if other == state else None)
        assert memo.recall(file.with_name(f"{name}.2"), state) is None


@given(st.data())
@example(None)
def test_no_damage_of_a_memo_gives_another_digest(data: st.DataObject | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        memo, file = DigestMemo(Path(folder)), Path("/weights/shard")
        memo.remember(file, STATE, "0123456789abcdef" * 4, begun=NOW)
        [kept] = Path(folder).iterdir()
        text = kept.read_bytes()
        if data is None:
            damaged = text.replace(b'"0123', b'"1123')
        else:
            first = data.draw(st.integers(0, len(text)))
            last = data.draw(st.integers(first, len(text)))
            damaged = text[:first] + data.draw(st.binary(max_size=80)) + text[last:]
        kept.write_bytes(damaged)
        assert memo.recall(file, STATE) == ("0123456789abcdef" * 4 if damaged == text else None)


def test_a_file_of_any_bytes_is_no_memo(tmp_path: Path) -> None:
    memo, file = DigestMemo(tmp_path), Path("/weights/shard")
    memo.remember(file, STATE, "a" * 64, begun=NOW)
    [kept] = tmp_path.iterdir()
    kept.unlink()
    kept.mkdir()  # not even a file
    assert memo.recall(file, STATE) is None


@pytest.mark.parametrize("moment", ["before", "half", "written", "placed"])
def test_killed_while_it_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """A new digest of a file in a new state: the memo says the old one, the new one or none, each for its state."""
    memo, file, later = DigestMemo(tmp_path), Path("/weights/shard"), FileState(1, 2, 3, OLD + 1)
    memo.remember(file, STATE, "a" * 64, begun=NOW)
    pid = os.fork()
    if pid == 0:
        try:
            _die(moment)
            memo.remember(file, later, "b" * 64, begun=NOW)
        finally:
            os._exit(3)  # whatever happened: it must not run the other tests
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    done = moment == "placed"
    assert (memo.recall(file, STATE), memo.recall(file, later)) == ((None, "b" * 64) if done else ("a" * 64, None))


def _die(moment: str) -> None:
    """In a child: die around the writing of a memo."""

    def kill(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "before":
        tempfile.mkstemp = kill  # type: ignore[assignment]
    elif moment == "written":
        Path.replace = kill  # type: ignore[assignment]
    elif moment == "placed":
        Path.unlink = kill  # type: ignore[assignment]
    else:
        fdopen = os.fdopen

        def half(descriptor: int, *_: object, **__: object) -> object:
            with fdopen(descriptor, "w") as file:
                file.write('{"schema": ')
            kill()
            return file

        os.fdopen = half  # type: ignore[assignment]
