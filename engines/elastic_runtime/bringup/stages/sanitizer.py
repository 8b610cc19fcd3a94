"""Stage `sanitizer`: two calls of an engine under NVIDIA's compute-sanitizer, where its golden run failed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace

from elastic_runtime.bringup.modes import EAGER
from elastic_runtime.bringup.place import CHILD, Place
from elastic_runtime.bringup.results import NOT_RUN, Found, read_result

_FAULTS = 9  # the exit code that it is told to give where it finds any


def run(place: Place) -> Found:
    """Whether the kernels of one prefill and one decode step touch memory that is not theirs; the log says which."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {NOT_RUN: "no compute-sanitizer on the PATH: it comes with the CUDA toolkit"}
    result = place.folder / "sanitized-calls.json"
    watched = [tool, "--tool", "memcheck", "--error-exitcode", str(_FAULTS)]
    stage = [sys.executable, *CHILD, "calls", str(result), replace(place, mode=EAGER).to_json()]
    code = subprocess.run([*watched, *stage], stdin=subprocess.DEVNULL, check=False).returncode
    return {"clean": code == 0, "exit": code, "calls": read_result(result)}
