"""Stage `kernels`: the plugins' own check of their CUDA kernels, compiled for the card at hand."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

from elastic_runtime.bringup.place import OPTIONS, Place
from elastic_runtime.bringup.results import NOT_RUN, Found
from elastic_runtime.errors import BuildError

_CHECK = Path("device_check") / "__main__.py"
_COULD_NOT = 2  # its exit code where the machine lacks something, which it names
_TAIL = 500  # characters of that


def run(place: Place) -> Found:
    """Its report; why it was not run where the compiler or the sources are missing.

    Raises:
        BuildError: it ended without a report.
    """
    program = find_check(place.sources)
    if program is None:
        where = f"in {place.sources}" if place.sources else "here (a wheel of elastic-plugins has none)"
        return {NOT_RUN: f"no sources of the plugins {where}: name a checkout's plugins/ with --plugin-sources"}
    if shutil.which("nvcc") is None:
        return {NOT_RUN: "no nvcc on the PATH: install the CUDA toolkit, or put its bin/ there"}
    folder, words = place.folder / "device_check", place.folder / "device_check.err"
    report = folder / "report.json"
    command = [sys.executable, *OPTIONS, str(program), "--report", str(folder)]
    with words.open("wb") as errors:  # its other words go to the stage's log
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=errors, check=False).returncode
    if code == _COULD_NOT:
        return {NOT_RUN: words.read_text("utf-8", errors="replace").strip()[-_TAIL:]}
    if not report.is_file():
        todo = "send the log of this stage and device_check.err"
        raise BuildError(str(program), expected="a report", found=f"none, it ended with {code}", todo=todo)
    return {"report": json.loads(report.read_text("utf-8"))}


def find_check(sources: Path | None) -> Path | None:
    """device_check of a folder of sources, or of a checkout that the installed elastic-plugins is run from."""
    if sources is None:
        package = importlib.util.find_spec("elastic_plugins")
        if package is None or package.origin is None:
            return None
        sources = Path(package.origin).parents[1]
    program = sources.resolve() / _CHECK
    return program if program.is_file() else None
