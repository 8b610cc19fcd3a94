"""The folder a build process runs in, and the words, errors among them, it and its parent exchange through it.

    request.json, model.onnx     what to build; S is fixed in the model
    source -> folder of the ONNX file (external data is found there)
    plugins.so -> the plugin library that goes into the engine, where there is one
    out -> a private folder beside the engine's place, so that the engine arrives by one rename
    lib/                         library names the loader must find, see `Flavour.library_links`
    processor                    the number of the processor it may keep for itself, six digits; empty for none
    log, result.json             what the builder said, what came of it

All names are relative and always the same: no path of the request reaches the build process, where its length would
move what is allocated after it, and with it the engine's bytes.
"""

from __future__ import annotations

import json
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.engine.flavour import flavour
from elastic_export.engine.request import EngineRequest
from elastic_runtime.errors import BuildError, ElasticError, InputError, InternalError, machine_error

REQUEST_FILE, MODEL_FILE, RESULT_FILE, LOG_FILE = "request.json", "model.onnx", "result.json", "log"
PROCESSOR_FILE = "processor"
LIBRARY_FOLDER = "lib"
OUT_FOLDER, ENGINE_FILE = "out", "engine"
PLUGIN_FILE = "plugins.so"
_NOTE = "In the build process:\n"


class BuildFaultError(Exception):
    """A fault of ours in the build process, neither the request's nor the machine's; a traceback shows both processes.

    Args:
        what: the exception of that process, in a line.
        trace: its traceback.
    """

    def __init__(self, what: str, trace: str) -> None:
        super().__init__(what)
        self.add_note(_NOTE + trace)


@dataclass(frozen=True)
class BuildFolder:
    """Where one build process runs (`folder`) and where its engine appears (`engine`)."""

    folder: Path
    engine: Path

    def log(self) -> str:
        """Everything the process said so far."""
        path = self.folder / LOG_FILE
        return path.read_text(errors="replace") if path.exists() else ""

    def result(self) -> EngineFacts | ElasticError | BuildFaultError | None:
        """What the process reported, None where it did not get that far."""
        path = self.folder / RESULT_FILE
        if not path.exists():
            return None
        values = json.loads(path.read_text())
        if "fault" in values:
            return BuildFaultError(**values["fault"])
        return EngineFacts.from_json(values["facts"]) if "facts" in values else error_from_json(values["error"])


@contextmanager
def build_folder(request: EngineRequest, model: bytes) -> Iterator[BuildFolder]:
    """Lay the folder out, and remove it and whatever is left in it afterwards."""
    request.output.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="elastic-engine-") as folder_name,
        tempfile.TemporaryDirectory(prefix=".engine-", dir=request.output.parent) as out_name,
    ):
        folder, out = Path(folder_name), Path(out_name)
        (folder / "source").symlink_to(request.onnx.parent.resolve())
        (folder / OUT_FOLDER).symlink_to(out.resolve())
        lay_libraries(folder / LIBRARY_FOLDER, request.flavour)
        inside = replace(request, onnx=Path("source") / request.onnx.name, output=Path(OUT_FOLDER) / ENGINE_FILE)
        if request.plugin_library is not None:
            (folder / PLUGIN_FILE).symlink_to(request.plugin_library.resolve())
            inside = replace(inside, plugin_library=Path(PLUGIN_FILE))
        write_file(folder / REQUEST_FILE, inside.to_json().encode())
        write_file(folder / MODEL_FILE, model)
        yield BuildFolder(folder, out / ENGINE_FILE)


def lay_libraries(folder: Path, flavour_name: str) -> None:
    """Make the folder of the libraries that a process with that product must find."""
    folder.mkdir()
    for name, library in flavour(flavour_name).library_links().items():
        (folder / name).symlink_to(library)


def write_processor(folder: Path, processor: int | None) -> None:
    """Tell the process that is about to run there which processor is its own; as long a text for each."""
    write_file(folder / PROCESSOR_FILE, b"" if processor is None else b"%06d" % processor)


def error_to_json(error: ElasticError) -> dict[str, Any]:
    """An error of ours as plain values; a fault of ours keeps its traceback."""
    values = {"subject": error.subject, "expected": error.expected, "found": error.found}
    if isinstance(error, InternalError):
        return {"kind": "internal", **values, "trace": _trace(error)}
    return {"kind": "input" if isinstance(error, InputError) else "build", **values, "todo": error.todo}


def fault_to_json(error: BaseException) -> dict[str, str]:
    """A fault of ours that no check foresaw, as the arguments of `BuildFaultError`."""
    return {"what": f"{type(error).__name__}: {error}", "trace": _trace(error)}


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def error_from_json(values: dict[str, Any]) -> ElasticError:
    """The error that `error_to_json` wrote."""
    if values["kind"] == "internal":
        fault = InternalError(values["subject"], expected=values["expected"], found=values["found"])
        fault.add_note(_NOTE + values["trace"])
        return fault
    kind = InputError if values["kind"] == "input" else BuildError
    return kind(values["subject"], expected=values["expected"], found=values["found"], todo=values["todo"])


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole. An OSError names it: a failed write says which disk is full, not only that one is."""
    try:
        path.write_bytes(data)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def build_error(error: Exception) -> BuildError | None:
    """The error a person reads where the machine ended a build; None for any other exception, a fault of ours."""
    if isinstance(error, MemoryError):
        return BuildError(
            "memory",
            expected="enough to build the engine",
            found="none left",
            todo="close other programs, or build where there is more",
        )
    return machine_error(error)


def last_words(output: str, *, lines: int = 6, width: int = 400) -> str:
    """The end of what a process said, short enough for an error message."""
    tail = [line.strip()[:width] for line in output.splitlines() if line.strip()][-lines:]
    return " | ".join(tail) if tail else "nothing"
