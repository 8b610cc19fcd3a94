"""Errors of the kernels against float64, as a table, the kernels compiled for this machine's CPU on the host shim.

python plugins/mamba2_mixer/testing/errors.py            rows of chunk_prefill
python plugins/mamba2_mixer/testing/errors.py PART ...   rows of the matrix whose names hold a PART
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mamba2_mixer.testing.cases import Case, errors, matrix, tolerances
from mamba2_mixer.testing.runner import MAIN, HostBuild, run_case


def row(name: str, case: Case, runner: Path, folder: Path) -> str:
    """One line of the table: the worst head's relative RMS, and the contract's bound."""
    found, bounds = errors(case, *run_case([str(runner)], case, folder)), tolerances(case)
    cells = (f"{found[output]:8.1e} of {bounds[output]:.0e}" for output in ("y", "ssm_state_out"))
    wrong = sum(found[output] > 0 for output in ("conv_state_out", "kept"))
    return f"{name:45} {case.activation:9} {' '.join(cells)} {'WRONG BITS' if wrong else ''}".rstrip()


def main(parts: list[str]) -> int:
    """See the module's text."""
    build = HostBuild(watch=())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runner = build.link(build.compile((*build.sources(), MAIN), folder).values(), folder / "case_runner")
        print(f"{'kernels on the host shim, against float64':45} {'T':9} {'y':17} ssm_state_out")
        for case_name, case in matrix().items():
            if any(part in case_name for part in parts):
                print(row(case_name, case, runner, folder), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["chunks"]))
