"""Writing a sub-model out as a checkpoint of its own, beside `cp` of the same bytes: seconds and the ratio of speeds.

    PYTHONPATH=tests python tests/bench/write_sliced.py --shape 12b|2b|1b4 --budget NAME [--folder DIR] [--rounds 3]
        [--hot] [--delete] [--check]

Makes the parent, of random weights, in DIR where it is not there yet. In turns, so that what else the machine does
meets both: writes the sub-model (its digests are computed on the way), and copies the one of before (no reflink, no
digests). Both end with a sync of what they wrote and begin from a source that is out of the page cache; with --hot from
one that was read just before, which says something only where memory holds both sources. The ratio is of the medians.
With --check the program ends with 1 where writing has less than 70 % of the speed of `cp`.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.weights.sliced import write_sliced
from elastic_runtime.errors import ElasticError
from elastic_runtime.format.digest import file_digest
from random_checkpoint import SHAPES, check_room, delete_random_checkpoint, write_random_checkpoint

_LEAST = 0.7


def main() -> None:
    """Make, write and copy in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--budget", required=True)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "elastic-bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hot", action="store_true", help="begin from a source in the page cache")
    parser.add_argument("--delete", action="store_true", help="remove the parent afterwards")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    parent, shape = arguments.folder / arguments.shape, SHAPES[arguments.shape]
    try:
        if not parent.exists():
            write_random_checkpoint(parent, shape)
        checkpoint = Checkpoint.open(parent)
        check_room(arguments.folder, 2 * shape.nbytes, "the sub-model and a copy of it")
        ratio = _compare(checkpoint, arguments)
        if arguments.delete:
            delete_random_checkpoint(parent)
    except ElasticError as error:
        sys.exit(str(error))
    met = ratio >= _LEAST
    print(f"{'met' if met else 'not met'}: {ratio:.2f} of the speed of cp (at least {_LEAST})")
    if arguments.check and not met:
        sys.exit(1)


def _compare(checkpoint: Checkpoint, arguments: argparse.Namespace) -> float:
    budget, written, copies = (
        checkpoint.budgets[arguments.budget],
        arguments.folder / "sub",
        arguments.folder / "copies",
    )
    warm = _read if arguments.hot else _drop
    digests: dict[Path, str] = {}
    ours, theirs = list[float](), list[float]()
    for _ in range(arguments.rounds):
        shutil.rmtree(written, ignore_errors=True)
        warm(checkpoint.shards)
        work = os.times()
        ours.append(_seconds(lambda: write_sliced(checkpoint, budget, written, digested=digests.__setitem__), written))
        used = [after - before for before, after in zip(work[:2], os.times()[:2], strict=True)]
        shards = sorted(written.glob("*.safetensors"))
        copies.mkdir()
        warm(shards)
        theirs.append(_seconds(partial(_copy, shards, copies), copies))
        shutil.rmtree(copies)
        size = sum(shard.stat().st_size for shard in shards)
        print(
            f"{size / 1e9:.2f} GB: written in {ours[-1]:.2f} s (processor: {used[0]:.1f} s, {used[1]:.1f} s in the "
            f"system), cp in {theirs[-1]:.2f} s",
            flush=True,
        )
    assert digests == {shard: file_digest(shard)[1] for shard in digests}
    shutil.rmtree(written)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"resident memory at most, Python and its libraries among it: {most / 1e6:.2f} GB")
    return statistics.median(theirs) / statistics.median(ours)


def _copy(shards: Iterable[Path], folder: Path) -> None:
    subprocess.run(["cp", "--reflink=never", *shards, folder], check=True)


def _seconds(work: Callable[[], object], folder: Path) -> float:
    """Until what `work` writes into `folder` is on the disk."""
    os.sync()
    start = time.monotonic()
    work()
    subprocess.run(["sync", *folder.iterdir()], check=True)
    return time.monotonic() - start


def _drop(files: Iterable[Path]) -> None:
    """Out of the page cache; what the disk's own cache holds is beyond us."""
    os.sync()
    for file in files:
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read(files: Iterable[Path]) -> None:
    for file in files:
        file_digest(file)


if __name__ == "__main__":
    main()
