"""The build process's own part: what its parent learns of an end without an engine, and its two threads."""

from __future__ import annotations

import errno
import sys
import threading
import traceback
from pathlib import Path

import pytest

from elastic_export.engine import child
from elastic_export.engine.build_folder import BuildFaultError, BuildFolder, last_words
from elastic_export.engine.request import EngineRequest
from elastic_runtime.errors import NO_ROOM, BuildError, ElasticError, InternalError


@pytest.mark.parametrize(
    ("raised", "text"),
    [
        (MemoryError(), r"^memory: expected enough to build the engine, found none left\. Close"),
        (OSError(errno.ENOSPC, "No space left", "lib/x"), "^lib/x: expected room to write, found No space left"),
        (OSError(errno.EIO, "Input/output error", "x"), "^x: expected a usable file, found Input/output error"),
    ],
)
def test_the_machines_refusals_in_the_build_process_are_build_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, text: str
) -> None:
    result = reported(tmp_path, monkeypatch, raised)
    with pytest.raises(BuildError, match=text):
        raise result


@pytest.mark.parametrize(
    ("raised", "what"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (
            FileNotFoundError(errno.ENOENT, "None", "contract.json"),
            "FileNotFoundError: [Errno 2] None: 'contract.json'",
        ),
    ],
)
def test_a_fault_of_ours_in_the_build_process_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, what: str
) -> None:
    result = reported(tmp_path, monkeypatch, raised)
    assert isinstance(result, BuildFaultError)
    assert not isinstance(result, ElasticError)  # those are the user's
    assert str(result) == what
    assert "in fail\n    raise raised" in result.__notes__[0]


def test_a_check_of_ours_that_fails_in_the_build_process_stays_a_fault_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = reported(tmp_path, monkeypatch, InternalError("plugin layers", expected="2", found="1"))
    assert isinstance(result, InternalError)
    assert (result.what, result.exit_code) == ("plugin layers: expected 2, found 1", 70)
    assert "In the build process:\n" in result.__notes__[0]
    assert "in fail\n    raise raised" in result.__notes__[0]


def test_a_fault_before_the_build_begins_is_reported_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "request.json").write_text("{}")
    assert isinstance(run_main(tmp_path, monkeypatch), BuildFaultError)


@pytest.mark.parametrize("number", sorted(NO_ROOM))
def test_where_there_is_no_room_for_a_result_the_status_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(number, "Full", str(path))

    monkeypatch.setattr(child, "write_file", full)
    (tmp_path / "request.json").touch()
    assert run_status(tmp_path, monkeypatch) == number


def reported(folder: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception) -> Exception:
    """What the parent learns of a build that ends with an exception."""

    def fail(*args: object) -> None:
        raise raised

    (folder / "request.json").touch()
    (folder / "model.onnx").touch()
    monkeypatch.setattr(EngineRequest, "from_json", lambda text: None)
    monkeypatch.setattr(child, "compile_engine", fail)
    return run_main(folder, monkeypatch)


def test_the_first_thread_sleeps_while_the_other_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both ran, what they allocate would lie by the clock, and with it the engine's bytes."""
    before, seen = sys.getswitchinterval(), list[object]()

    def look(*args: object) -> BaseException:
        frame = sys._current_frames()[threading.main_thread().ident or 0]
        seen.extend([sys.getswitchinterval(), "join" in [entry.name for entry in traceback.extract_stack(frame)]])
        return BuildError("the builder", expected="an engine", found="a look around")

    (tmp_path / "request.json").touch()
    monkeypatch.setattr(EngineRequest, "from_json", lambda text: None)
    monkeypatch.setattr(child, "_outcome", look)
    assert "a look around" in str(run_main(tmp_path, monkeypatch))
    assert seen == [child.FOREVER, True]
    assert sys.getswitchinterval() == before


def run_status(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.chdir(folder)
    (folder / "processor").touch()
    monkeypatch.setattr(child, "die_with_parent", lambda: None)
    monkeypatch.setattr(child, "left_to_chance", lambda processor: ())
    return child.main()


def run_main(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Exception:
    assert run_status(folder, monkeypatch) == 0
    result = BuildFolder(folder, folder / "engine").result()
    assert isinstance(result, Exception)
    return result


def test_last_words_are_the_last_and_short() -> None:
    assert last_words("a\n\nb\nc\n", lines=2) == "b | c"
    assert last_words("x" * 1000, width=10) == "x" * 10
    assert last_words(" \n") == "nothing"
