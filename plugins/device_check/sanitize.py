"""A third of the cases under compute-sanitizer: a process a tool and op, all beside each other."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

from device_check.matrix import OPS, Op, emit_check
from device_check.place import Place

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
_FOUND = 9  # exit code of a tool that found something
_MARGIN = 10.0  # seconds that float64 takes afterwards


def run(place: Place) -> None:
    """Checks of every case under every tool, and of what the tool itself says."""
    if shutil.which("compute-sanitizer") is None:
        place.emit("skipped", what="compute-sanitizer", why="it was not found")
        return
    jobs = [(op, tool) for op in OPS for tool in TOOLS]
    with ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(lambda job: _sanitize(place, *job), jobs))


def _sanitize(place: Place, op: Op, tool: str) -> None:
    rows, folder = op.rows("some"), place.scratch / op.folder / tool
    folder.mkdir(parents=True)
    listed = op.runner.write_list(rows, folder)
    program = str(place.programs / op.program)
    command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", str(_FOUND), program, str(listed)]
    what = f"{tool} of {len(rows)} {op.name} cases"
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        try:
            code = process.wait(max(1.0, place.left() - _MARGIN))
        except subprocess.TimeoutExpired:
            process.kill()
            place.emit("skipped", what=what, why="not all of them in time")
            return
        said.seek(0)
        text = said.read()
    lines = [line for line in text.splitlines() if "=====" in line]
    place.emit("check", what=what, errors={}, wrong=f"exit {code}: {' '.join(lines[:12])[:1500]}" if code else "")
    for name, result in op.runner.read_list(rows, folder, text).items():
        emit_check(place, op, f"{op.name} {name} under {tool}", rows[name], result)
