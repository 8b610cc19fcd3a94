"""The small cases under compute-sanitizer: a process a tool, all tools beside each other."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

from mamba2_mixer.testing.runner import read_list, write_list

from device_check.matrix import emit_check, small
from device_check.place import Place

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
_FOUND = 9  # exit code of a tool that found something


def run(place: Place) -> None:
    """Checks of every case under every tool, and of what the tool itself says."""
    if shutil.which("compute-sanitizer") is None:
        place.emit("skipped", what="compute-sanitizer", why="it was not found")
        return
    with ThreadPoolExecutor(len(TOOLS)) as pool:
        list(pool.map(lambda tool: _sanitize(place, tool), TOOLS))


def _sanitize(place: Place, tool: str) -> None:
    rows, folder = small(), place.scratch / tool
    folder.mkdir()
    listed = write_list(rows, folder)
    program = str(place.programs / "case_runner")
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", str(_FOUND), program, str(listed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    clean = done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if "=====" in line]
    words = "" if clean else f"exit {done.returncode}: {' '.join(lines[:12])[:1500]}"
    place.emit("check", what=f"{tool} of {len(rows)} cases", errors={}, wrong=words)
    for name, result in read_list(rows, folder, done.stdout).items():
        emit_check(place, f"{name} under {tool}", rows[name], result)
