"""A whole export of random weights in a published shape: seconds and memory of every step, beside `cp` and `sha256sum`.

    PYTHONPATH=tests python tests/bench/export.py --shape 12b|2b|1b4 [--folder DIR] [--delete] [--verify]
        [--peer PYTHON] [--readme FILE] [-- EXPORT OPTION…]

Makes the checkpoint in DIR (a folder below the temporary one unless given) where it is not there yet, exports it beside
it, deletes the bundle, then copies and digests the same bytes with the system's tools. What follows `--` goes to
`elastic-export`; unless it says otherwise: plugin engines of all budgets for an rtx5080, without verification unless
--verify is given.
Remembered digests are kept in DIR too and forgotten before the run. With --delete the checkpoint goes as well.

With --peer the nearest other exporter runs as well: PYTHON is of an environment with `tensorrt-edgellm[export]`. It
holds the model in memory, so it gets the largest shape up to this one for which there is enough; where that is a
smaller one, made for it and deleted, our own export of it is measured too. It writes one ONNX file of the parent, with
its weights, and neither verifies nor builds.

With --readme the table goes into FILE, in the place that names this script and its shape, as in ours.

Memory is anonymous memory (/proc/PID/smaps_rollup) of all processes together, looked at ten times a second, so that
mapped weights, which the kernel takes back when it likes, do not count. Times are wall time: use an idle machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench_report import Report, Row, with_report
from elastic_export.bundle.beside import run_record_file
from elastic_runtime.errors import ElasticError, InputError
from random_checkpoint import SHAPES, check_room, delete_random_checkpoint, write_random_checkpoint

_PAUSE = 0.1
_STEP = re.compile(r"  (\S.*?) +(\d+\.\d) s\n?")  # as cli/terminal.py says that a step has ended
_PEER_COPIES = 3  # of the weights: what tensorrt-edgellm holds in memory at most, with room to spare
_DEFAULTS = {"--budget": ["all"], "--target": ["rtx5080"], "--ops": ["plugin"]}


@dataclass(frozen=True)
class Sample:
    """Anonymous bytes of all processes at a moment (time.monotonic)."""

    at: float
    anonymous: int


def main() -> None:
    """Make, export, compare, print."""
    arguments = _arguments()
    try:
        report = _measure(arguments)
    except ElasticError as error:
        sys.exit(str(error))
    print(report.text())
    if arguments.readme:
        page = arguments.readme.read_text("utf-8")
        command = f"tests/bench/export.py --shape {arguments.shape}"
        arguments.readme.write_text(with_report(page, command, report), "utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "elastic-bench")
    parser.add_argument("--delete", action="store_true", help="remove the checkpoint afterwards")
    parser.add_argument("--verify", action="store_true", help="do not skip verification")
    parser.add_argument("--peer", type=Path, metavar="PYTHON", help="with tensorrt-edgellm[export]")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="put the table into this page")
    parser.add_argument("options", nargs="*", help="of elastic-export, behind --")
    return parser.parse_args()


def _measure(arguments: argparse.Namespace) -> Report:
    shape, folder = arguments.shape, arguments.folder
    options = [*([] if arguments.verify else ["--no-verify"]), *arguments.options]
    for name, value in _DEFAULTS.items():
        options += [] if any(option.split("=")[0] == name for option in options) else [name, *value]
    load = os.getloadavg()[0]
    smaller = _fits_peer(shape) if arguments.peer else shape
    with made_checkpoint(folder, shape, keep=not arguments.delete) as checkpoint:
        rows = [*export_steps(checkpoint, folder, options), *_system_tools(checkpoint, folder)]
        if arguments.peer and smaller == shape:
            rows.append(_peer(arguments.peer, checkpoint, folder))
    if arguments.peer and smaller != shape:
        with made_checkpoint(folder, smaller, keep=False) as checkpoint:
            *_, whole = export_steps(checkpoint, folder, options)
            rows += [replace(whole, step=f"whole, {smaller}"), _peer(arguments.peer, checkpoint, folder)]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = f"{shape} ({SHAPES[shape].nbytes / 1e9:.1f} GB of random weights)"
    place = f"{len(os.sched_getaffinity(0))} processors and {memory / 1e9:.0f} GB, load {load:.1f} before"
    return Report(f"`elastic-export {' '.join(options)}` of the {size} on {place}", tuple(rows))


@contextmanager
def made_checkpoint(folder: Path, shape: str, *, keep: bool) -> Iterator[Path]:
    """A checkpoint of the shape, made where it is not there yet."""
    checkpoint = folder / shape
    if not checkpoint.exists():
        check_room(folder, 2 * SHAPES[shape].nbytes, "the checkpoint and one copy of it")
        seconds = _seconds(lambda: write_random_checkpoint(checkpoint, SHAPES[shape]))
        print(f"made {SHAPES[shape].nbytes / 1e9:.1f} GB in {seconds:.1f} s", file=sys.stderr)
    try:
        yield checkpoint
    finally:
        if not keep:
            delete_random_checkpoint(checkpoint)


def export_steps(checkpoint: Path, folder: Path, options: list[str]) -> list[Row]:
    """Our steps, and the whole at last."""
    output, cache, ends = folder / "bundle", folder / "cache", list[tuple[str, float, float]]()
    _clear(output, cache)  # of a run that was ended: an export over a bundle keeps of it what it can
    command = [sys.executable, "-m", "elastic_export", "--checkpoint", str(checkpoint), "--output", str(output)]

    def hear(line: str) -> None:
        if found := _STEP.fullmatch(line):
            ends.append((found[1], float(found[2]), time.monotonic()))
        else:
            print(line, end="", file=sys.stderr)

    samples = run_sampled([*command, *options], hear, {"ELASTIC_CACHE": str(cache)})
    record = json.loads(run_record_file(output).read_text())
    rows = [Row(name, taken, most_memory(samples, end - taken - _PAUSE, end)) for name, taken, end in ends]
    _clear(output)
    return [*rows, Row("whole", record["seconds"]["whole"], most_memory(samples))]


def _clear(*folders: Path) -> None:
    """Remove folders, and the record of the run that made one."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        run_record_file(folder).unlink(missing_ok=True)


def _fits_peer(most: str) -> str:
    """The largest shape up to this one for which the other exporter has memory."""
    [kilobytes] = re.findall(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    free = 1024 * int(kilobytes)
    fitting = [name for name, shape in SHAPES.items() if shape.nbytes * _PEER_COPIES <= free]
    names = [name for name in fitting if SHAPES[name].nbytes <= SHAPES[most].nbytes]
    if not names:
        raise InputError("--peer", expected="memory for its smallest shape", found=f"{free / 1e9:.1f} GB free")
    return max(names, key=lambda name: SHAPES[name].nbytes)


def _peer(python: Path, checkpoint: Path, folder: Path) -> Row:
    """The other exporter's export of the parent, which it takes with a chat template only."""
    with tempfile.TemporaryDirectory(prefix="peer-", dir=folder) as name:
        source, output = Path(name) / checkpoint.name, Path(name) / "export"
        source.mkdir()
        for file in checkpoint.iterdir():
            (source / file.name).symlink_to(file.resolve())
        (source / "chat_template.jinja").write_text("{{ messages[0].content }}\n")
        command = [str(python), "-m", "tensorrt_edgellm.scripts.export", str(source), str(output)]
        start = time.monotonic()
        samples = run_sampled(command, lambda line: print(line, end="", file=sys.stderr))
        taken = time.monotonic() - start
        size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    step = f"tensorrt-edgellm-export, {checkpoint.name}, {size / 1e9:.1f} GB written"
    return Row(step, taken, most_memory(samples))


def run_sampled(
    command: list[str], hear: Callable[[str], object], environment: Mapping[str, str] | None = None
) -> list[Sample]:
    """Run a command to its end; `hear` gets what it says on standard error, line by line."""
    os.sync()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | (environment or {})
    )
    assert process.stderr is not None
    with _sampled(process.pid) as samples:
        for line in process.stderr:
            hear(line)
    if process.wait():
        sys.exit(f"failed: {' '.join(command)}")
    return samples


def most_memory(samples: Iterable[Sample], begin: float = 0, end: float = math.inf) -> int:
    """Bytes at most between two moments."""
    return max((sample.anonymous for sample in samples if begin <= sample.at <= end), default=0)


def _system_tools(checkpoint: Path, folder: Path) -> list[Row]:
    shards = sorted(map(str, checkpoint.glob("*.safetensors")))
    size, copies = sum(Path(shard).stat().st_size for shard in shards), folder / "copies"
    _clear(copies)
    copies.mkdir()
    tools = {
        "cp, and sync": lambda: _run(f'cp --reflink=never "$@" {copies} && sync {copies}/*', shards),
        "sha256sum": lambda: _run('sha256sum "$@"', shards),
    }
    rows = []
    for name, work in tools.items():
        os.sync()
        rows.append(Row(f"{name}, {size / 1e9:.1f} GB", _seconds(work)))
    shutil.rmtree(copies)
    return rows


def _run(script: str, arguments: list[str]) -> None:
    subprocess.run(["sh", "-c", script, "sh", *arguments], check=True, stdout=subprocess.DEVNULL)


def _seconds(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


@contextmanager
def _sampled(pid: int) -> Iterator[list[Sample]]:
    """Samples of a process and all that it started, while the block runs."""
    samples, done = list[Sample](), threading.Event()

    def watch() -> None:
        while not done.wait(_PAUSE):
            samples.append(Sample(time.monotonic(), sum(map(_anonymous, _family(pid)))))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants that still run."""
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                if _program(int(child)) != _program(pid):  # until it is another one it is its parent, memory and all
                    yield from _family(int(child))
    except OSError:
        return  # it has just ended


def _program(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    # Shared memory is what buffers of Python's mmap are, and no file's either.
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Anonymous:", "Pss_Shmem:")))


if __name__ == "__main__":
    main()
