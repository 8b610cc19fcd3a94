"""Builds case_runner on the host shim and runs cases through it, or through one that was built for a GPU."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from mamba2_mixer.testing.cases import Case, Data, Result, make_data, read_result, write_case

PLUGINS = Path(__file__).parents[2]
SOURCES = (
    "common/host_shim/fiber.cpp",
    "common/host_shim/cuda_shim.cpp",
    "common/abi.cpp",
    "mamba2_mixer/select.cpp",
    "mamba2_mixer/c_api.cu",
    "mamba2_mixer/launch_scan.cu",
    "mamba2_mixer/launch_float32.cu",
)
NARROW_SOURCES = ("mamba2_mixer/launch_float16.cu", "mamba2_mixer/launch_bfloat16.cu")
MAIN = "mamba2_mixer/testing/case_runner.cu"
WARNINGS = ("-Wall", "-Wextra", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class CaseError(Exception):
    """case_runner did not finish: its last words."""


def compile_command(output: Path, flags: Sequence[str], sources: Sequence[str], plugins: Path = PLUGINS) -> list[str]:
    """The g++ command that builds `sources` on the host shim."""
    named = ["g++", "-std=c++17", "-g1", *WARNINGS, *flags, "-DELASTIC_HOST_SHIM", f"-I{plugins / 'common'}"]
    return [*named, "-x", "c++", *(str(plugins / source) for source in sources), "-o", str(output)]


def build_host_runner(folder: Path, *, float32_only: bool = False, sanitize: bool = True, plugins: Path = PLUGINS) -> Path:
    """case_runner for this machine's CPU; raises CaseError with the compiler's words."""
    output = folder / "case_runner"
    flags = ["-O1", *(SANITIZERS if sanitize else ()), *(["-DELASTIC_FLOAT32_ONLY"] if float32_only else [])]
    sources = (*SOURCES, *(() if float32_only else NARROW_SOURCES), MAIN)
    done = subprocess.run(compile_command(output, flags, sources, plugins), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CaseError(done.stderr)
    return output


def run_case(command: Sequence[str], case: Case, folder: Path) -> tuple[Data, Result]:
    """Runs `case` by `command` + [case file, output file]; raises CaseError with what it said."""
    data = make_data(case)
    source, output = folder / "case.bin", folder / "output.bin"
    write_case(case, data, source)
    done = subprocess.run([*command, str(source), str(output)], capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        raise CaseError(f"exit {done.returncode}: {done.stderr[-4000:]}")
    return data, read_result(case, output)
