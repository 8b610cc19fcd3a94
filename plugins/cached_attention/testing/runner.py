"""Builds attention_cases on the host shim and runs cases through it, or through one that was built for a GPU."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cached_attention.testing.cases import Case, Data, Result, make_data, read_result, write_case
from mamba2_mixer.testing.runner import SHIM, CaseError, HostBuild

#: Of one case of a list: what came out, or why nothing did.
Outcome = Result | str

#: Translation units of the library, without the TensorRT glue.
SOURCES = (
    "common/last_error.cpp",
    "cached_attention/select.cpp",
    "cached_attention/c_api.cu",
    "cached_attention/launch_float16.cu",
    "cached_attention/launch_bfloat16.cu",
)
NARROWER = "cached_attention/launch_bfloat16.cu"
MAIN = "cached_attention/testing/attention_cases.cu"


@dataclass(frozen=True)
class AttentionBuild(HostBuild):
    """How the sources are compiled for this machine's CPU; `float16_only` leaves the other type out."""

    float16_only: bool = False

    def sources(self) -> tuple[str, ...]:
        """Translation units of the library and the shim."""
        return (*SHIM, *(s for s in SOURCES if not (self.float16_only and s == NARROWER)))

    def flags(self) -> list[str]:
        """The options of g++."""
        return [*super().flags(), *(["-DELASTIC_FLOAT16_ONLY"] if self.float16_only else [])]


#: Made in a moment, for what needs neither sanitizers nor both types.
QUICK = AttentionBuild(float16_only=True, sanitize=False)


def run_case(command: Sequence[str], case: Case, folder: Path, data: Data | None = None) -> tuple[Data, Result]:
    """Runs `case` by `command` + [case file, output file]; raises CaseError with what it said."""
    data = data or make_data(case)
    source, output = folder / "case.bin", folder / "output.bin"
    write_case(case, data, source)
    done = subprocess.run(
        [*command, str(source), str(output)], capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode != 0:
        raise CaseError(f"exit {done.returncode}: {done.stderr[-4000:]}")
    return data, read_result(case, output)


def run_cases(
    command: Sequence[str], cases: Mapping[str, Case], folder: Path, timeout: float = 300
) -> dict[str, Outcome]:
    """Runs all cases by one process of `command` + [list]; a case that fails leaves the others alone."""
    listed = write_list(cases, folder)
    try:
        done = subprocess.run([*command, str(listed)], capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired as late:
        return read_list(cases, folder, (late.stdout or b"").decode(), "not reached in time")
    return read_list(cases, folder, done.stdout, f"exit {done.returncode}: {done.stderr[-1000:]}")


def write_list(cases: Mapping[str, Case], folder: Path) -> Path:
    """The file that names every case and its output, and the cases."""
    lines = []
    for number, case in enumerate(cases.values()):
        source = folder / f"{number}.case"
        write_case(case, make_data(case), source)
        lines.append(f"{source}\n{folder / f'{number}.output'}\n")
    listed = folder / "list"
    listed.write_text("".join(lines))
    return listed


def read_list(cases: Mapping[str, Case], folder: Path, said: str, otherwise: str = "not reached") -> dict[str, Outcome]:
    """By case, from what attention_cases said: `ok`, or why not, a line each; `otherwise` where it said nothing."""
    lines = [line.removeprefix("case: ") for line in said.splitlines() if line.startswith("case: ")]
    outcomes: dict[str, Outcome] = {}
    for number, (name, case) in enumerate(cases.items()):
        word = lines[number] if number < len(lines) else otherwise
        outcomes[name] = read_result(case, folder / f"{number}.output") if word == "ok" else word
    return outcomes
