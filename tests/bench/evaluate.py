"""An evaluation of random weights in a published shape: seconds, and memory of all processes together.

    PYTHONPATH=tests python tests/bench/evaluate.py --shape 12b|2b|1b4 [--folder DIR] [--delete] [-- EVALUATE OPTION…]

Makes the checkpoint in DIR (a folder below the temporary one unless given) where it is not there yet, and scores a text
of this repository with all its budgets, 1024 tokens unless options say otherwise. The shapes have no tokenizer: that of
the demo takes each byte as a token. Random weights say nothing of a text; this is about time and memory. With --delete
the checkpoint is removed afterwards. Memory is anonymous memory, looked at as in tests/bench/export.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from export import made_checkpoint, most_memory, run_sampled

from bench_report import Report, Row
from elastic_runtime.errors import ElasticError
from random_checkpoint import SHAPES
from random_demo import random_demo

_TEXT = Path(__file__).parents[2] / "LICENSE"


def main() -> None:
    """Make, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "elastic-bench")
    parser.add_argument("--delete", action="store_true", help="remove the checkpoint afterwards")
    parser.add_argument("options", nargs="*", help="of elastic-export evaluate, behind --")
    arguments = parser.parse_args()
    options = [
        "--text",
        str(_TEXT),
        "--tokenizer",
        str(random_demo()),
        "--tokens",
        "1024",
        "--context",
        "1025",
        *arguments.options,
    ]
    load = os.getloadavg()[0]
    try:
        with made_checkpoint(arguments.folder, arguments.shape, keep=not arguments.delete) as checkpoint:
            command = [sys.executable, "-m", "elastic_export", "evaluate", str(checkpoint), *options]
            samples = run_sampled(command, lambda line: print(line, end="", file=sys.stderr), {})
    except ElasticError as error:
        sys.exit(str(error))
    place = f"{len(os.sched_getaffinity(0))} processors, load {load:.1f} before"
    row = Row("whole", samples[-1].at - samples[0].at, most_memory(samples))
    print(Report(f"elastic-export evaluate of {arguments.shape} on {place}", (row,)).text())


if __name__ == "__main__":
    main()
