"""Builds case_runner on the host shim and runs cases through it, or through one that was built for a GPU."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from mamba2_mixer.testing.case_files import read_result, write_case
from mamba2_mixer.testing.cases import make_data

PLUGINS = Path(__file__).parents[2]
#: Translation units of the library, without the TensorRT glue.
SOURCES = (
    "common/abi.cpp",
    "common/last_error.cpp",
    "mamba2_mixer/select.cpp",
    "mamba2_mixer/c_api.cu",
    "mamba2_mixer/launch_scan.cu",
    "mamba2_mixer/launch_chunk.cu",
    "mamba2_mixer/launch_resident.cu",
    "mamba2_mixer/launch_float32.cu",
    "mamba2_mixer/launch_float16.cu",
    "mamba2_mixer/launch_bfloat16.cu",
)
NARROW = ("mamba2_mixer/launch_float16.cu", "mamba2_mixer/launch_bfloat16.cu")
SHIM = tuple(f"common/host_shim/{name}.cpp" for name in ("fiber", "copies", "cuda_shim", "arithmetic"))
MAIN = "mamba2_mixer/testing/case_runner.cu"
WARNINGS = ("-Wall", "-Wextra", "-Werror")
#: What a build may be watched for: accesses outside of arrays and undefined behaviour; accesses that nothing orders.
MEMORY = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
RACES = ("-fsanitize=thread",)


def sources_digest() -> str:
    """Of every file that a build reads: the name under which its products may be kept."""
    digest = hashlib.sha256()
    for path in sorted(
        p for p in PLUGINS.rglob("*") if p.suffix in {".h", ".cpp", ".cu", ".cuh", ".cmake", ".txt", ".py"}
    ):
        digest.update(path.relative_to(PLUGINS).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class CaseError(Exception):
    """A compiler or case_runner did not finish well: its last words."""


@dataclass(frozen=True)
class HostBuild:
    """How the sources are compiled for this machine's CPU.

    `float32_only` leaves the narrow types out, `strict` makes warnings errors, `optimize` pays where many cases run.
    `watch`: MEMORY, RACES or nothing. `plugins`: root of the sources.
    """

    float32_only: bool = False
    watch: tuple[str, ...] = MEMORY
    strict: bool = True
    optimize: bool = True
    plugins: Path = PLUGINS

    def sources(self) -> tuple[str, ...]:
        """Translation units of the library and the shim."""
        return (*SHIM, *(s for s in SOURCES if not (self.float32_only and s in NARROW)))

    def flags(self, source: str = "") -> list[str]:
        """The options of g++ for `source`."""
        only = ["-DELASTIC_FLOAT32_ONLY"] if self.float32_only else []
        strict = WARNINGS if self.strict else ("-w",)
        # The shim is no part of what is tested, and runs for every thread of a block.
        level = "-O0" if not self.optimize else "-O2" if source in SHIM else "-O1"
        base = ["-std=c++17", level, "-g1", "-fPIC", "-DELASTIC_HOST_SHIM", f"-I{self.plugins / 'common'}"]
        if self.watch == RACES:  # the shim says what orders what; its own accesses are of no thread
            return [*base, *strict, *only, "-DELASTIC_WATCH_RACES", *(() if source in SHIM else RACES)]
        return [*base, *strict, *only, *self.watch]

    @staticmethod
    def objects(sources: Iterable[str], folder: Path) -> dict[str, Path]:
        """Where `compile` puts its object files, by source."""
        return {source: folder / (Path(source).name + ".o") for source in sources}

    def compile(self, sources: Iterable[str], folder: Path) -> dict[str, Path]:
        """Object files of `sources` in `folder`, by source; raises CaseError with the compiler's words."""
        objects = self.objects(sources, folder)
        commands = [
            ["g++", *self.flags(source), "-c", "-x", "c++", str(self.plugins / source), "-o", str(output)]
            for source, output in objects.items()
        ]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(_run, commands))
        return objects

    def link(self, objects: Iterable[Path], output: Path, *, shared: bool = False) -> Path:
        """A program of `objects`, or a shared library."""
        kind = ["-shared"] if shared else []
        _run(["g++", *self.watch, *kind, *map(str, objects), "-o", str(output)])
        return output


#: Made in a moment, for what needs neither sanitizers nor the narrow types.
QUICK = HostBuild(float32_only=True, watch=(), optimize=False)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CaseError(f"{' '.join(command)}\n{done.stderr}")


C, D, R = TypeVar("C"), TypeVar("D"), TypeVar("R")  # a case, its data, what comes out


@dataclass(frozen=True)
class Runs(Generic[C, D, R]):
    """How the programs of an op run its cases.

    Attributes:
        make: the data of a case.
        write: the file of a case that the program reads.
        read: what the program wrote.
    """

    make: Callable[[C], D]
    write: Callable[[C, D, Path], None]
    read: Callable[[C, Path], R]

    def run_case(self, command: Sequence[str], case: C, folder: Path, data: D | None = None) -> tuple[D, R]:
        """Runs `case` by `command` + [case file, output file]; raises CaseError with what it said."""
        data = data or self.make(case)
        source, output = folder / "case.bin", folder / "output.bin"
        self.write(case, data, source)
        done = subprocess.run(
            [*command, str(source), str(output)], capture_output=True, text=True, check=False, timeout=300
        )
        if done.returncode != 0:
            raise CaseError(f"exit {done.returncode}: {done.stderr[-4000:]}")
        return data, self.read(case, output)

    def run_cases(
        self, command: Sequence[str], cases: Mapping[str, C], folder: Path, timeout: float = 300
    ) -> dict[str, R | str]:
        """What came out of each case, or why nothing did, by one process of `command` + [list]; a case that fails
        leaves the others alone.
        """
        listed = self.write_list(cases, folder)
        try:
            done = subprocess.run([*command, str(listed)], capture_output=True, text=True, check=False, timeout=timeout)
        except subprocess.TimeoutExpired as late:
            return self.read_list(cases, folder, (late.stdout or b"").decode(), "not reached in time")
        return self.read_list(cases, folder, done.stdout, f"exit {done.returncode}: {done.stderr[-1000:]}")

    def write_list(self, cases: Mapping[str, C], folder: Path) -> Path:
        """The file that names every case and its output, and the cases."""
        lines = []
        for number, case in enumerate(cases.values()):
            source = folder / f"{number}.case"
            self.write(case, self.make(case), source)
            lines.append(f"{source}\n{folder / f'{number}.output'}\n")
        listed = folder / "list"
        listed.write_text("".join(lines))
        return listed

    def read_list(
        self, cases: Mapping[str, C], folder: Path, said: str, otherwise: str = "not reached"
    ) -> dict[str, R | str]:
        """By case, from what the program said: `ok`, or why not, a line each; `otherwise` where it said nothing."""
        lines = [line.removeprefix("case: ") for line in said.splitlines() if line.startswith("case: ")]
        outcomes: dict[str, R | str] = {}
        for number, (name, case) in enumerate(cases.items()):
            word = lines[number] if number < len(lines) else otherwise
            outcomes[name] = self.read(case, folder / f"{number}.output") if word == "ok" else word
        return outcomes


MIXER = Runs(make_data, write_case, read_result)
run_case, run_cases, write_list, read_list = MIXER.run_case, MIXER.run_cases, MIXER.write_list, MIXER.read_list
