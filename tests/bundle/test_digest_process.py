"""A digest in a process of its own: the same one, whatever becomes of the process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from elastic_export.bundle import digest_process as module
from elastic_export.bundle import digests as digests_module
from elastic_export.bundle.digest_process import digest_apart
from elastic_export.bundle.digests import Digests
from elastic_runtime.errors import InputError

SIZE = (130 << 20) + 7  # more than one line is said of it


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file and its digest."""
    file = tmp_path_factory.mktemp("large") / "a shard"
    data = bytes(range(251)) * (SIZE // 251 + 1)
    file.write_bytes(data[:SIZE])
    return file, hashlib.sha256(data[:SIZE]).hexdigest()


def children() -> set[str]:
    """Of this process, by number."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def started(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the process be another program."""
    popen = subprocess.Popen

    def other(command: list[str], **options: object) -> subprocess.Popen[str]:
        return popen([sys.executable, "-c", code], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(module.subprocess, "Popen", other)


def test_the_digest_and_every_byte_told(large: tuple[Path, str]) -> None:
    told = list[int]()
    assert digest_apart(large[0], on_bytes=told.append) == (SIZE, large[1])
    assert sum(told) == SIZE
    assert len(told) > 2
    assert not children()


def test_it_is_the_process_that_reads(large: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module, "streamed_digest")
    monkeypatch.chdir(large[0].parent)
    assert digest_apart(Path(large[0].name), on_bytes=lambda _: None) == (SIZE, large[1])


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(3)",
        "import os; print(1 << 20, flush=True); os.kill(os.getpid(), 9)",
        "print('no number', flush=True)",
        "import os; os.write(1, b'\\xff\\xfe\\n')",
    ],
)
def test_a_process_that_gives_none(large: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    started(code, monkeypatch)
    told = list[int]()
    assert digest_apart(large[0], on_bytes=told.append) == (SIZE, large[1])
    assert sum(told) == SIZE


@pytest.mark.parametrize("executable", ["/nowhere/python", "", None])
def test_a_system_that_starts_none(
    large: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(module.sys, "executable", executable)
    assert digest_apart(large[0], on_bytes=lambda _: None) == (SIZE, large[1])


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest_apart(tmp_path / "none", on_bytes=lambda _: None)
    with pytest.raises(InputError, match="expected a file"):
        digest_apart(tmp_path, on_bytes=lambda _: None)


def test_nothing_runs_on_when_nobody_waits_any_more(large: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    started("import time; print(5, flush=True); time.sleep(1e6)", monkeypatch)  # who waits for it is timed out

    def enough(count: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        digest_apart(large[0], on_bytes=enough)
    assert not children()


def test_large_files_alone(large: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    apart = list[Path]()

    def noted(file: Path, **options: object) -> tuple[int, str]:
        apart.append(file)
        return digest_apart(file, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(digests_module, "digest_apart", noted)
    (tmp_path / "small").write_bytes(b"bytes")
    with Digests() as digests:
        assert digests.of_ours(tmp_path / "small", "small").result().size == 5
        entry = digests.of_source(large[0], "weights/a", trust=True).result()
        assert (entry.path, entry.size, entry.sha256) == ("weights/a", SIZE, large[1])
        gauge = digests.gauge()
        assert gauge.done() == gauge.total == SIZE + 5
    assert apart == [large[0]]
