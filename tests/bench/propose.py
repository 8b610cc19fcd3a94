"""Budgets proposed for random weights in a published shape: seconds, memory of all processes together, sizes hit.

    PYTHONPATH=tests python tests/bench/propose.py --shape 12b|2b|1b4 [--folder DIR] [--delete] [-- PROPOSE OPTION…]

Makes the checkpoint in DIR (a folder below the temporary one unless given) where it is not there yet, and asks for
budgets of three quarters and of half its parameters, unless options say otherwise, on a text of this repository and
with the tokenizer of the demo. Random weights have no order and say nothing of a text: this is about time, memory and
sizes. With --delete the checkpoint is removed afterwards. Memory is anonymous memory, looked at as in
tests/bench/export.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from export import made_checkpoint, most_memory, run_sampled

from bench_report import Report, Row
from elastic_export.checkpoint.demo import demo_checkpoint
from elastic_runtime.errors import ElasticError
from random_checkpoint import SHAPES

_TEXT = Path(__file__).parents[2] / "LICENSE"


def main() -> None:
    """Make, propose, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "elastic-bench")
    parser.add_argument("--delete", action="store_true", help="remove the checkpoint afterwards")
    parser.add_argument("options", nargs="*", help="of elastic-export budgets propose, behind --")
    arguments = parser.parse_args()
    size = SHAPES[arguments.shape].architecture.parameters() / 1e6
    output, load = arguments.folder / f"{arguments.shape}-proposed.json", os.getloadavg()[0]
    options = ["--text", str(_TEXT), "--tokenizer", str(demo_checkpoint()), "--output", str(output), "--force"]
    if not {"--params", "--vram"}.intersection(arguments.options):
        options += ["--params", f"{0.75 * size:.0f}M,{0.5 * size:.0f}M"]
    try:
        with made_checkpoint(arguments.folder, arguments.shape, keep=not arguments.delete) as checkpoint:
            command = [sys.executable, "-m", "elastic_export", "budgets", "propose", "--checkpoint", str(checkpoint)]
            samples = run_sampled(
                [*command, *options, *arguments.options], lambda line: print(line, end="", file=sys.stderr), {}
            )
    except ElasticError as error:
        sys.exit(str(error))
    place = f"{len(os.sched_getaffinity(0))} processors, load {load:.1f} before"
    row = Row("whole", samples[-1].at - samples[0].at, most_memory(samples))
    print(Report(f"elastic-export budgets propose of {arguments.shape} on {place}", (row,)).text())
    found = json.loads(output.read_text("utf-8"))["proposed"]
    sizes = {row["budget"]: row["parameters"] for row in found["evaluation"]["rows"]}
    for name, target in found["targets"].items():
        if "params" in target:
            print(
                f"  {name:<16} {sizes[name]:>14,} parameters, {sizes[name] / target['params'] - 1:+.2%} of the target"
            )


if __name__ == "__main__":
    main()
