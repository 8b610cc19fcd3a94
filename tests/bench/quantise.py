"""What quantising a parent takes: seconds, of them the processor's, and memory, with reading, writing and digests; and
what it takes to count again what that loses, as for a budget that joins others whose files are there.

    PYTHONPATH=tests python tests/bench/quantise.py CHECKPOINT FOLDER

Writes the files of the parent in eight bits into FOLDER and removes them again. tests/random_checkpoint.py makes a
checkpoint.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.layers.eight_bits import EightBits
from elastic_export.weights.quantised import Quantised, counted_beside


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    checkpoint = Checkpoint.open(given.checkpoint)
    eight_bits = EightBits.of(checkpoint.architecture, checkpoint.budgets.values(), checkpoint.prefix)
    given.folder.mkdir(parents=True, exist_ok=True)
    files = list[Path]()
    budgets = checkpoint.budgets.values()
    quantised = Quantised(checkpoint, eight_bits, budgets, precision="bf16", parent="bench")
    taken = _taken(lambda: quantised.write(given.folder, lambda path, digest: files.append(path)))
    read = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
    written = sum(path.stat().st_size for path in files)
    print(f"{read / 1e9:.2f} GB read, {written / 1e9:.2f} GB written in {len(files)} files")
    print(f"{taken}, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB resident at most")
    print(f"counted again: {_taken(quantised.measure)}")
    for path in files:
        path.unlink()
        counted_beside(path).unlink()


def _taken(work: Callable[[], object]) -> str:
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    work()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{seconds:.1f} s, {processor:.1f} s of a processor"


if __name__ == "__main__":
    main()
