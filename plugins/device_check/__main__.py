"""Everything about the plugins that needs a GPU, in one command.

    python plugins/device_check [--minutes 8] [--report DIR] [--build DIR] [--peers DIR] [--only NAMES]

Stages, each a process with a deadline: small cases against float64; all cases, on the default stream and on one of
their own; times of decode and prefill beside the copy bandwidth and, with --peers, beside public kernels, after a check
against float64 at that size; compute-sanitizer; Nsight Compute. DIR/report.json is whole after every finding. What time
does not suffice for is skipped by name. Times are reported, never judged. Exit 0: all correct; 1: something was not; 2:
nothing could be run; 3: nothing was wrong, but something that had to be checked was not.

--build: a folder with libelastic_plugins.so, case_runner and attention_cases for this card, and plugin_runner and
attention_plugin for the plugins; without it nvcc and CMake build them.
--peers: what prepare_peers.py made.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLUGINS = Path(__file__).resolve().parents[1]
sys.path[:] = [str(PLUGINS), *(path for path in sys.path if Path(path).resolve() != PLUGINS / "device_check")]

from device_check import table  # noqa: E402
from device_check.matrix import OPS  # noqa: E402
from device_check.place import Place  # noqa: E402
from device_check.report import Report  # noqa: E402
from device_check.schedule import Stage, run_all  # noqa: E402

_MATRIX, _MIXER, _ATTENTION = "device_check.matrix", "device_check.mixer_times", "device_check.attention_times"
STAGES = (
    Stage("compile peers", "device_check.tune", 120, behind=True),
    Stage("long cases", _MATRIX, 120, proves=True, behind=True, options={"rows": "long"}),
    Stage("smoke", _MATRIX, 60, proves=True, options={"rows": "small"}),
    Stage("matrix", _MATRIX, 90, least=15, proves=True, options={"rows": "all"}),
    Stage("matrix own stream", _MATRIX, 90, least=15, proves=True, options={"rows": "all", "stream": "own"}),
    Stage("matrix of plugin", _MATRIX, 90, proves=True, options={"rows": "all", "plugin": True}),
    Stage("ceilings first", "device_check.ceilings", 40, alone=True),
    Stage("decode", _MIXER, 100, least=15, alone=True, gated=True, options={"op": "decode"}),
    Stage("prefill", _MIXER, 130, least=20, alone=True, gated=True, options={"op": "prefill"}),
    Stage("attention decode", _ATTENTION, 70, least=15, alone=True, gated=True, options={"op": "attention decode"}),
    Stage("attention prefill", _ATTENTION, 80, least=15, alone=True, gated=True, options={"op": "attention prefill"}),
    Stage("sanitizers", "device_check.sanitize", 120, least=30, alone=True, proves=True),
    Stage("ncu", "device_check.ncu", 90, least=15, alone=True),
    Stage("ceilings last", "device_check.ceilings", 30, least=10, alone=True),
)


class CannotRunError(Exception):
    """What this machine lacks."""


def main() -> int:
    """See the module's text."""
    options = arguments()
    begun = time.time()
    try:
        machine = find_machine() if options.device == "cuda" else "no card: the kernels' build for the CPU"
        options.report.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            programs = options.build or build(Path(scratch) / "build")
            place = Place(
                programs.resolve(),
                options.peers and options.peers.resolve(),
                Path(scratch) / "stages",
                options.report.resolve(),
                begun + 60 * options.minutes,
                options.device,
            )
            report = Report(place.report, machine)
            run_all(stages(options.only), place, report)
    except CannotRunError as lack:
        print(f"device_check: {lack}. Nothing was run.", file=sys.stderr)
        return 2
    return finish(report)


def stages(only: str | None) -> list[Stage]:
    """Those of `--only`, of the ops that are here."""
    here = [s for s in STAGES if s.module != _ATTENTION or (PLUGINS / "cached_attention").is_dir()]
    return [s for s in here if not only or s.name in only.split(",")]


def finish(report: Report) -> int:
    """The page and the plot; the exit code."""
    found = report.as_json()
    page = table.text(found)
    (report.folder / "table.txt").write_text(page)
    table.plot(found, report.folder / "times.svg")
    print(page)
    if report.wrong():
        return 1
    return 3 if report.unproven() else 0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="device_check", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8, help="all stages together end by then (default: 8)")
    parser.add_argument(
        "--report", type=Path, default=Path("device-report"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--build", type=Path, metavar="DIR", help="programs that are built already")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="what prepare_peers.py made")
    parser.add_argument("--only", metavar="NAMES", help="stages, by comma: " + ", ".join(s.name for s in STAGES))
    cpu = "cpu: proves the stages, with programs of the host shim"
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=cpu)
    return parser.parse_args()


def find_machine() -> str:
    """Name, driver and clocks of the GPU; raises CannotRunError."""
    if shutil.which("nvidia-smi") is None:
        raise CannotRunError("expected an NVIDIA GPU, found no nvidia-smi on this machine")
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotRunError(f"expected an NVIDIA GPU, nvidia-smi says: {(done.stdout + done.stderr).strip()}")
    return done.stdout.strip().splitlines()[0]


def build(folder: Path) -> Path:
    """The library and the programs that run the ops' cases for the card at hand; raises CannotRunError."""
    for tool, what in (("nvcc", "the CUDA compiler"), ("cmake", "CMake")):
        if shutil.which(tool) is None:
            raise CannotRunError(f"expected {what}, found no {tool} on this machine, and no --build was given")
    _run("cmake", "-S", str(PLUGINS), "-B", str(folder), "-DELASTIC_ARCHITECTURES=native")
    programs = [name for op in OPS for name in (op.program, op.plugin_program)]
    known = _run("cmake", "--build", str(folder), "--target", "help").split()
    wanted = ["elastic_plugins", *(name for name in programs if name in known)]
    _run("cmake", "--build", str(folder), "--parallel", "4", "--target", *wanted)
    return folder


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotRunError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
