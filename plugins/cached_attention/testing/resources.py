"""Registers, spills and shared memory of the attention kernels on every architecture that they run on. Needs no GPU.

PYTHONPATH=plugins python -m cached_attention.testing.resources            compares with resources.json
PYTHONPATH=plugins python -m cached_attention.testing.resources --write    writes it
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from mamba2_mixer.testing.resources import Table, parse, readable, to_json, verdict

ATTENTION = Path(__file__).parents[1]
TABLE = ATTENTION / "resources.json"
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
#: On it they are refused when a call is enqueued: bfloat16, and `attend` with heads above 128.
TURING = 75
SOURCES = ("launch_float16.cu", "launch_bfloat16.cu")
#: Part of the mangled names of the op's kernels.
NAMESPACE = "7elastic9attention"
_ENTRY = "ptxas info    : Compiling entry function "


def of_namespace(report: str, namespace: str) -> str:
    """What `ptxas -v` said of the kernels of one namespace, as a mangled name has it."""
    head, *entries = report.split(_ENTRY)
    return head + "".join(_ENTRY + entry for entry in entries if namespace in entry.split("'")[1])


def dynamic_shared() -> dict[str, int]:
    """Bytes of shared memory that a launch asks for besides the kernel's own arrays, by kernel."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/dynamic_shared"
        source = str(ATTENTION / "testing" / "dynamic_shared.cpp")
        subprocess.run(["g++", "-std=c++17", "-DELASTIC_HOST_SHIM", "-c", source, "-o", f"{program}.o"], check=True)
        shim = sorted(str(path) for path in (ATTENTION.parent / "common" / "host_shim").glob("*.cpp"))
        subprocess.run(
            ["g++", "-std=c++17", "-DELASTIC_HOST_SHIM", f"{program}.o", *shim, "-o", program],
            check=True,
        )
        said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    return {kernel: int(size) for kernel, size in (line.split(": ") for line in said.splitlines())}


def read_report(report: str) -> Table:
    """The op's table in the words of `ptxas -v`, all shared memory of a block counted."""
    table, asked = parse(of_namespace(report, NAMESPACE)), dynamic_shared()
    names = {mangled: re.sub("elastic::attention::", "", name) for mangled, name in readable(list(table)).items()}
    found: Table = {}
    for kernel, usages in sorted(table.items(), key=lambda item: names[item[0]]):
        name = names[kernel]
        found[name] = {a: replace(u, shared=u.shared + asked.get(name, 0)) for a, u in usages.items() if runs(name, a)}
    return found


def runs(kernel: str, architecture: int) -> bool:
    """Whether a call can come to a kernel, such as attend<float16, 128, 16>, on an architecture."""
    return architecture != TURING or not ("bfloat16" in kernel or "<float16, 256" in kernel)


def measure(architectures: Iterable[int] = ARCHITECTURES) -> Table:
    """Compiles all kernels for `architectures`; raises RuntimeError with nvcc's words."""
    targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in architectures]

    def compiled(source: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            command = ["nvcc", "-std=c++17", "-O3", "-fatbin", *targets, "-Xptxas", "-v,--warn-on-spills"]
            command += [f"-I{ATTENTION.parent / 'common'}", str(ATTENTION / source), "-o", f"{folder}/out.fatbin"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        return done.stderr + done.stdout

    with ThreadPoolExecutor(2) as pool:
        return read_report("".join(pool.map(compiled, SOURCES)))


def main() -> int:
    """See the module's text."""
    table = measure()
    if "--write" in sys.argv[1:]:
        TABLE.write_text(to_json(table))
    said, code = verdict(table, TABLE.read_text())
    print(said)
    return code


if __name__ == "__main__":
    sys.exit(main())
