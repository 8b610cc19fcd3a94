"""Everything about the mixer that needs a GPU, in one command.

    python plugins/mamba2_mixer/device_check.py [--build DIR] [--report FILE] [--skip-bench]

Builds the library for the card at hand, then: every case of the host tests against float64, through the C interface
and, where TensorRT's headers were found (TENSORRT_RTX_ROOT, TENSORRT_ROOT), through the plugin's enqueue; small cases
under compute-sanitizer; decode and prefill timed beside the copy bandwidth measured in the same run. Exit 0: all
correct; 1: something was not; 2: it could not be run. Times are reported, never judged.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PLUGINS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PLUGINS))

from mamba2_mixer.testing.cases import Case, errors, matrix, tolerances  # noqa: E402
from mamba2_mixer.testing.runner import CaseError, run_case  # noqa: E402

#: Small, and together every kernel and variant.
SANITIZED = (
    *("prefill base", "prefill N=30", "prefill N=256", "prefill bfloat16", "length=3 of 201"),
    *("decode base", "decode N=30", "decode N=256", "decode float16"),
)
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")


class CannotRunError(Exception):
    """What this machine lacks."""


def main() -> int:
    """See the module's text."""
    options = arguments()
    try:
        machine = find_machine()
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.build or Path(scratch) / "build"
            programs = build(folder)
            report = {"machine": machine, **check_all(programs, Path(scratch), bench=not options.skip_bench)}
    except CannotRunError as lack:
        print(f"device_check: {lack}. Nothing was run.", file=sys.stderr)
        return 2
    if options.report:
        options.report.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if report["passed"] else 1


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--build", type=Path, help="folder to build in and keep (default: a temporary one)")
    parser.add_argument("--report", type=Path, help="write the findings there as JSON")
    parser.add_argument("--skip-bench", action="store_true", help="leave the timings out")
    return parser.parse_args()


def find_machine() -> str:
    """Name, driver and clocks of the GPU; raises CannotRunError."""
    for tool, what in (("nvidia-smi", "an NVIDIA GPU"), ("nvcc", "the CUDA compiler"), ("cmake", "CMake")):
        if shutil.which(tool) is None:
            raise CannotRunError(f"expected {what}, found no {tool} on this machine")
    query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,temperature.gpu", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotRunError(f"expected an NVIDIA GPU, nvidia-smi says: {(done.stdout + done.stderr).strip()}")
    return done.stdout.strip()


def build(folder: Path) -> dict[str, Path]:
    """The programs by name, built for this card; plugin_runner is missing where TensorRT's headers are."""
    said = run("cmake", "-S", str(PLUGINS), "-B", str(folder), "-DELASTIC_ARCHITECTURES=native")
    print("\n".join(line for line in said.splitlines() if "TensorRT plugins" in line))
    names = ["case_runner", "mixer_bench", *(["plugin_runner"] if "TensorRT plugins: yes" in said else [])]
    run("cmake", "--build", str(folder), "--parallel", "4", "--target", *names)
    return {name: folder / name for name in names}


def run(*command: str) -> str:
    """Standard output of a command that must succeed; raises CannotRunError with its words."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotRunError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def check_all(programs: dict[str, Path], folder: Path, *, bench: bool) -> dict[str, Any]:
    """Correctness first; a wrong kernel is not timed."""
    rows = matrix()
    report: dict[str, Any] = {}
    for name in ("case_runner", "plugin_runner"):
        if name in programs:
            report[name] = check_rows(name, [str(programs[name])], rows, folder)
    report["sanitizers"] = sanitize(str(programs["case_runner"]), {name: rows[name] for name in SANITIZED}, folder)
    failures = [f for part in report.values() for f in part["failures"]]
    report["passed"] = not failures
    if bench and not failures:
        report["bench"] = [json.loads(line) for line in run(str(programs["mixer_bench"])).splitlines()]
        print_bench(report["bench"])
    return report


def check_rows(name: str, command: Sequence[str], rows: dict[str, Case], folder: Path) -> dict[str, Any]:
    """Every row through `command`: how many, the worst errors by type, and what failed."""
    worst: dict[str, dict[str, float]] = {}
    failures = []
    for row, case in rows.items():
        if name == "plugin_runner" and case.kernel != "auto":
            continue  # an engine always leaves the choice to the shape
        found = check_row(command, case, folder)
        if isinstance(found, str):
            failures.append(f"{name}, {row}: {found}")
            continue
        for output, error in found.items():
            by_type = worst.setdefault(case.activation, {})
            by_type[output] = max(by_type.get(output, 0.0), error)
    print(f"{name}: {len(rows)} cases, {len(failures)} failures, worst relative RMS {json.dumps(worst)}")
    print("\n".join(failures))
    return {"cases": len(rows), "worst": worst, "failures": failures}


def check_row(command: Sequence[str], case: Case, folder: Path) -> dict[str, float] | str:
    """The errors of one case, or why it fails."""
    try:
        data, result = run_case(command, case, folder)
    except CaseError as error:
        return str(error)
    found, bounds = errors(case, data, result), tolerances(case)
    beyond = [f"{name} {error:g} above {bounds[name]:g}" for name, error in found.items() if not error <= bounds[name]]
    return ", ".join(beyond) or found


def sanitize(runner: str, rows: dict[str, Case], folder: Path) -> dict[str, Any]:
    """Every row under every tool of compute-sanitizer."""
    if shutil.which("compute-sanitizer") is None:
        print("compute-sanitizer was not found: not run")
        return {"failures": [], "skipped": "compute-sanitizer was not found"}
    failures = []
    for tool in SANITIZERS:
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9", runner]
        for row, case in rows.items():
            found = check_row(command, case, folder)
            if isinstance(found, str):
                failures.append(f"{tool}, {row}: {found}")
    print(f"compute-sanitizer: {len(SANITIZERS)} tools, {len(rows)} cases each, {len(failures)} failures")
    print("\n".join(failures))
    return {"tools": SANITIZERS, "cases": list(rows), "failures": failures}


def print_bench(lines: list[dict[str, Any]]) -> None:
    """The timings as a table."""
    first, last = lines[0], lines[-1]
    print(f"{first['device']}, copy {first['copy_gb_s']} GB/s before, {last['copy_gb_s_after']} after; 12B shape, bf16")
    print("batch tokens layers    us/layer      GB/s  of copy")
    for line in lines[1:-1]:
        sizes = f"{line['batch']:5} {line['tokens']:6} {line['layers']:6}"
        print(f"{sizes} {line['us']:11.2f} {line['gb_s']:9.0f} {line['of_copy']:8.1%}")


if __name__ == "__main__":
    sys.exit(main())
