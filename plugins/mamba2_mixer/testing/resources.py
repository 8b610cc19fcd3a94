"""Registers, spills and shared memory of every kernel on every architecture, as ptxas reports them. Needs no GPU.

python plugins/mamba2_mixer/testing/resources.py            compares with resources.json
python plugins/mamba2_mixer/testing/resources.py --write    writes it
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

MIXER = Path(__file__).parents[1]
TABLE = MIXER / "resources.json"
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
SOURCES = (
    *("launch_scan.cu", "launch_chunk.cu", "launch_resident.cu"),
    *("launch_float32.cu", "launch_float16.cu", "launch_bfloat16.cu"),
)
KIB = 1024
#: Shared memory that a block may have, by architecture (CUDA C++ Programming Guide, compute capabilities).
SHARED_LIMIT = {75: 64 * KIB, 80: 163 * KIB, 86: 99 * KIB, 89: 99 * KIB, 90: 227 * KIB, 100: 227 * KIB, 120: 99 * KIB}

TENSOR_CORES_FROM = 80  # before it such a kernel has no body and no launch

_ENTRY = re.compile(r"Compiling entry function '(\S+)' for 'sm_(\d+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture; bytes are those of a thread, `shared` those of a block."""

    registers: int
    shared: int
    stack: int
    spills: int


#: By kernel, then by architecture.
Table = dict[str, dict[int, Usage]]


def parse(report: str) -> Table:
    """The table in the words of `ptxas -v`; kernels by mangled name."""
    table: Table = {}
    kernel, arch, stack, spills = "", 0, 0, 0
    for line in report.splitlines():
        if entry := _ENTRY.search(line):
            kernel, arch, stack, spills = entry[1], int(entry[2]), 0, 0
        elif found := _SPILLS.search(line):
            stack, spills = max(stack, int(found[1])), max(spills, int(found[2]) + int(found[3]))
        elif kernel and (used := _USED.search(line)):
            shared = _SHARED.search(line)
            usage = Usage(int(used[1]), int(shared[1]) if shared else 0, stack, spills)
            table.setdefault(kernel, {})[arch] = usage
    return table


def readable(mangled: list[str]) -> dict[str, str]:
    """Names such as decode_step<bfloat16, true, 1>, by mangled name."""
    done = subprocess.run(["c++filt", *mangled], capture_output=True, text=True, check=True)
    short = (re.sub(r"^void |elastic::mamba2::|\(.*", "", name) for name in done.stdout.splitlines())
    plain = (name.replace("__nv_bfloat16", "bfloat16").replace("__half", "float16") for name in short)
    return dict(zip(mangled, plain, strict=True))


def measure(architectures: Iterable[int] = ARCHITECTURES) -> Table:
    """Compiles all kernels for `architectures`; raises RuntimeError with nvcc's words."""
    report = ""
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in architectures]
    with tempfile.TemporaryDirectory() as folder:
        for source in SOURCES:
            command = ["nvcc", "-std=c++17", "-O3", "-fatbin", *targets, "-Xptxas", "-v,--warn-on-spills"]
            command += [f"-I{MIXER.parent / 'common'}", str(MIXER / source), "-o", f"{folder}/out.fatbin"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
            report += done.stderr + done.stdout
    return read_report(report)


def dynamic_shared() -> dict[str, int]:
    """Bytes of shared memory that a launch asks for besides the kernel's own arrays, which are all that ptxas sees."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/dynamic_shared"
        source = str(MIXER / "testing" / "dynamic_shared.cpp")
        subprocess.run(["g++", "-std=c++17", "-DELASTIC_HOST_SHIM", source, "-o", program], check=True)
        said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    return {kernel: int(size) for kernel, size in (line.split(": ") for line in said.splitlines())}


def read_report(report: str) -> Table:
    """The table in the words of `ptxas -v`; kernels by readable name, sorted by it; all shared memory of a block."""
    table, asked = parse(report), dynamic_shared()
    names = readable(list(table))
    found: Table = {}
    for kernel, usages in sorted(table.items(), key=lambda item: names[item[0]]):
        more = asked.pop(names[kernel], 0)
        found[names[kernel]] = {
            arch: replace(usage, shared=usage.shared + (more if arch >= TENSOR_CORES_FROM else 0))
            for arch, usage in usages.items()
        }
    if asked:
        raise RuntimeError(f"dynamic_shared.cpp: expected names of kernels, found {sorted(asked)}")
    return found


def compiler() -> str:
    """nvcc's version, such as 13.0.88: builds of one release may give registers otherwise."""
    text = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"V(\d+\.\d+\.\d+)", text)
    return found[1] if found else "unknown"


def made_by(text: str) -> str:
    """The compiler that a table's file is of."""
    return str(json.loads(text)["nvcc"])


def differences(table: Table, text: str) -> list[str]:
    """The faults of what the compiler that is here made, against the text of a table's file."""
    return faults(table, from_json(text), same_compiler=made_by(text) == compiler())


def faults(table: Table, committed: Table, *, same_compiler: bool = True) -> list[str]:
    """What must not be: a spill, a variable in local memory (the source indexes it, or chooses it by its address), too
    much shared memory, a kernel without its row or a row without its kernel; and, of one compiler, a row of other
    figures. One that says more than is measured hides the next growth up to it. Another compiler allocates otherwise,
    which says nothing of the source.
    """
    out = []
    for kernel, usages in table.items():
        for arch, usage in usages.items():
            where, old = f"{kernel} on sm_{arch}", committed.get(kernel, {}).get(arch)
            if usage.spills:
                out.append(f"{where}: expected no spills, found {usage.spills} bytes")
            elif usage.stack:
                out.append(f"{where}: expected no variables in local memory, found {usage.stack} bytes of them")
            if usage.shared > SHARED_LIMIT[arch]:
                out.append(
                    f"{where}: expected at most {SHARED_LIMIT[arch]} bytes of shared memory, found {usage.shared}"
                )
            if old is None:
                out.append(f"{where}: expected a row in {TABLE.name}, found none")
            elif same_compiler and usage != old:
                out.append(f"{where}: expected {old}, found {usage}; --write, if that is meant")
    missing = sorted(set(committed) - set(table))
    return [*out, *(f"{kernel}: expected to be built, found only in {TABLE.name}" for kernel in missing)]


def verdict(table: Table, text: str) -> tuple[str, int]:
    """What to say of a measurement beside a table's file, and the exit code."""
    found, made = differences(table, text), made_by(text)
    same = "all as committed" if made == compiler() else f"figures not compared: the table is nvcc {made}'s"
    architectures = len({arch for usages in table.values() for arch in usages})
    return "\n".join(found) or f"{len(table)} kernels on {architectures} architectures: no spills, {same}", bool(found)


def to_json(table: Table) -> str:
    """One line a kernel and architecture."""
    rows = []
    for kernel, usages in table.items():
        cells = ",\n".join(f'   "sm_{a}": {json.dumps(vars(u))}' for a, u in sorted(usages.items()))
        rows.append(f"  {json.dumps(kernel)}: {{\n{cells}\n  }}")
    joined = ",\n".join(rows)
    return f'{{\n "nvcc": "{compiler()}",\n "kernels": {{\n{joined}\n }}\n}}\n'


def from_json(text: str) -> Table:
    """The table that `to_json` wrote."""
    kernels = json.loads(text)["kernels"]
    return {k: {int(arch[3:]): Usage(**u) for arch, u in usages.items()} for k, usages in kernels.items()}


def main() -> int:
    """See the module's text."""
    if shutil.which("nvcc") is None:
        print("nvcc was not found: nothing was measured", file=sys.stderr)
        return 2
    table = measure()
    if "--write" in sys.argv[1:]:
        TABLE.write_text(to_json(table))
    said, code = verdict(table, TABLE.read_text())
    print(said)
    return code


if __name__ == "__main__":
    sys.exit(main())
