"""A whole export of random weights in a published shape: seconds and memory of every step, beside `cp` and `sha256sum`.

    PYTHONPATH=tests python tests/bench/export.py --shape 12b|2b|1b4 [--folder DIR] [--delete] [--verify]
        [-- EXPORT OPTION…]

Makes the checkpoint in DIR (a folder below the temporary one unless given) where it is not there yet, exports it beside
it, deletes the bundle, then copies and digests the same bytes with the system's tools. What follows `--` goes to
`elastic-export`; unless it says otherwise: all budgets for an rtx5080, without verification unless --verify is given.
Remembered digests are kept in DIR too and forgotten before the run. With --delete the checkpoint goes as well.

Memory is anonymous memory (/proc/PID/smaps_rollup) of all processes together, looked at ten times a second, so that
mapped weights, which the kernel takes back when it likes, do not count. Times are wall time: use an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from elastic_export.bundle.beside import run_record_file
from elastic_runtime.errors import ElasticError
from random_checkpoint import SHAPES, check_room, delete_random_checkpoint, write_random_checkpoint

_PAUSE = 0.1
_STEP = re.compile(r"  (\S.*?) +(\d+\.\d) s\n?")  # as cli/terminal.py says that a step has ended
_DEFAULTS = {"--budget": ["all"], "--target": ["rtx5080"]}


@dataclass(frozen=True)
class Sample:
    """Anonymous bytes of all processes at a moment (time.monotonic)."""

    at: float
    anonymous: int


def main() -> None:
    """Make, export, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "elastic-bench")
    parser.add_argument("--delete", action="store_true", help="remove the checkpoint afterwards")
    parser.add_argument("--verify", action="store_true", help="do not skip verification")
    parser.add_argument("options", nargs="*", help="of elastic-export, behind --")
    arguments = parser.parse_args()
    checkpoint, shape = arguments.folder / arguments.shape, SHAPES[arguments.shape]
    try:
        if not checkpoint.exists():
            check_room(arguments.folder, 2 * shape.nbytes, "the checkpoint and one copy of it")
            seconds = _seconds(lambda: write_random_checkpoint(checkpoint, shape))
            print(f"made {shape.nbytes / 1e9:.1f} GB in {seconds:.1f} s")
        skipped = [] if arguments.verify else ["--no-verify"]
        _export(checkpoint, arguments.folder, [*skipped, *arguments.options])
        _system_tools(checkpoint, arguments.folder)
        if arguments.delete:
            delete_random_checkpoint(checkpoint)
    except ElasticError as error:
        sys.exit(str(error))


def _export(checkpoint: Path, folder: Path, options: list[str]) -> None:
    output, cache = folder / "bundle", folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, "-m", "elastic_export", "--checkpoint", str(checkpoint), "--output", str(output)]
    for name, value in _DEFAULTS.items():
        command += [] if name in options else [name, *value]
    environment, ends = os.environ | {"ELASTIC_CACHE": str(cache)}, list[tuple[str, float, float]]()
    os.sync()
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr is not None
    with _sampled(process.pid) as samples:
        for line in process.stderr:
            if found := _STEP.fullmatch(line):
                ends.append((found[1], float(found[2]), time.monotonic()))
            else:
                print(line, end="", file=sys.stderr)
    if process.wait():
        sys.exit("the export failed")
    record = json.loads(run_record_file(output).read_text())
    print(f"elastic-export {' '.join(command[4:])} {' '.join(options)}")
    for name, taken, end in ends:
        inside = [s.anonymous for s in samples if end - taken - _PAUSE <= s.at <= end]
        print(f"  {name:<40} {taken:7.1f} s  {max(inside, default=0) / 1e9:6.2f} GB")
    peak = max(sample.anonymous for sample in samples)
    print(f"  {'whole':<40} {record['seconds']['whole']:7.1f} s  {peak / 1e9:6.2f} GB of anonymous memory at most")
    shutil.rmtree(output)
    run_record_file(output).unlink()


def _system_tools(checkpoint: Path, folder: Path) -> None:
    shards = sorted(map(str, checkpoint.glob("*.safetensors")))
    size, copies = sum(Path(shard).stat().st_size for shard in shards), folder / "copies"
    copies.mkdir()
    tools = {
        "cp, and sync": lambda: _run(f'cp --reflink=never "$@" {copies} && sync {copies}/*', shards),
        "sha256sum": lambda: _run('sha256sum "$@"', shards),
    }
    for name, work in tools.items():
        os.sync()
        seconds = _seconds(work)
        print(f"  {f'{name}, {size / 1e9:.1f} GB':<40} {seconds:7.1f} s  {size / 1e9 / seconds:6.2f} GB/s")
    shutil.rmtree(copies)


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
                yield from _family(int(child))
    except OSError:
        return  # it has just ended


def _anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


if __name__ == "__main__":
    main()
