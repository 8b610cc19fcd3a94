"""case_runner over a list of cases: one that fails leaves the others alone, one that ends the process is named."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from mamba2_mixer.testing.cases import Case, Result, errors, make_data, tolerances
from mamba2_mixer.testing.runner import run_cases

CASES = {"first": Case(calls=((3,),)), "refused": Case(calls=((1,),)), "last": Case(calls=((2,),))}


def test_a_refused_case_leaves_the_others_alone(case_runner: Path, tmp_path: Path) -> None:
    cases = {**CASES, "refused": replace(CASES["refused"], kernel="decode_step", state_size=30)}
    for command in ([str(case_runner)], [str(case_runner), "--own-stream"]):
        found = run_cases(command, cases, tmp_path)
        assert str(found["refused"]).startswith("Mamba2Mixer: kernel decode_step: expected 1 token")
        for name in ("first", "last"):
            result = found[name]
            assert isinstance(result, Result)
            worst = errors(cases[name], make_data(cases[name]), result)
            assert all(worst[output] <= bound for output, bound in tolerances(cases[name]).items())


def test_cases_after_the_end_of_the_process_say_so(tmp_path: Path) -> None:
    ends = "import sys; print('case: no'); print('dying', file=sys.stderr); sys.exit(7)"
    found = run_cases([sys.executable, "-c", ends], CASES, tmp_path)
    assert found == {"first": "no", "refused": "exit 7: dying\n", "last": "exit 7: dying\n"}


def test_cases_that_were_not_reached_in_time_say_so(tmp_path: Path) -> None:
    hangs = "import time; print('case: no', flush=True); time.sleep(60)"
    found = run_cases([sys.executable, "-c", hangs], CASES, tmp_path, timeout=3)
    assert found == {"first": "no", "refused": "not reached in time", "last": "not reached in time"}
