"""Nsight Compute's counters of one launch of each kernel that is furthest from its floor: ncu.csv beside the report."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from mamba2_mixer.library import KERNELS, MixerError, MixerLibrary

from device_check.mixer_set import LAYER_12B, MixerSet, Size
from device_check.place import Place

#: (batch, tokens, kernel as the library names it)
CALLS = ((1, 1, "decode_step"), (64, 1, "decode_step"), (1, 2048, "scan_prefill"))
#: Tokens of the prefill kernels that the library has besides.
_TOKENS = 8192
ATTENTION = Path(__file__).parents[1] / "cached_attention"
_KERNELS = "regex:(decode_|conv_|scan_|chunk_|gated_|norm_|attend|append|merge).*"
#: Of a launch, what the page says: how long it took and what bound it, and how many blocks a multiprocessor had.
METRICS = {
    "Duration": "duration",
    "DRAM Throughput": "dram",
    "L2 Cache Throughput": "l2",
    "L1/TEX Cache Throughput": "l1",
    "Compute (SM) Throughput": "compute",
    "Achieved Active Warps Per SM": "warps",
    "Block Limit Registers": "blocks_by_registers",
    "Block Limit Shared Mem": "blocks_by_shared",
    "Shared Memory Configuration Size": "shared",
}
_SECTIONS = ("SpeedOfLight", "LaunchStats", "Occupancy", "WarpStateStats", "MemoryWorkloadAnalysis")


def run(place: Place) -> None:
    """A process under ncu that makes each of CALLS."""
    if shutil.which("ncu") is None:
        place.emit("skipped", what="ncu", why="it was not found")
        return
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
    code += "from device_check import ncu; ncu.call_all(sys.argv[1])"
    sections = [word for section in _SECTIONS for word in ("--section", section)]
    command = ["ncu", "--clock-control", "none", "--csv", "--page", "details", *sections, "--kernel-name", _KERNELS]
    found = subprocess.run(
        [*command, sys.executable, "-c", code, str(place.programs)], capture_output=True, text=True, check=False
    )
    lines = [line for line in found.stdout.splitlines() if line.startswith('"')]
    (place.report / "ncu.csv").write_text("\n".join(lines) + "\n")
    if found.returncode or len(lines) < 2:
        place.emit("skipped", what="ncu", why=f"exit {found.returncode}: {(found.stdout + found.stderr)[-800:]}")
    else:
        place.emit("note", what="ncu", rows=len(lines) - 1)
        for launch in launches(lines):
            place.emit("counters", **launch)


def launches(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Of the lines of ncu.csv, a launch each: kernel, grid, and METRICS as ncu says them, with their units."""
    found: dict[str, dict[str, Any]] = {}
    for row in csv.DictReader(lines):
        launch = found.setdefault(row["ID"], {"kernel": _instance(row["Kernel Name"]), "grid": row["Grid Size"]})
        if name := METRICS.get(row["Metric Name"]):
            launch[name] = f"{row['Metric Value']} {row['Metric Unit']}".strip()
    return list(found.values())


def _instance(kernel: str) -> str:
    """`chunk<bf16, 40>` of `chunk<bf16, (int)40>(Args)`: ncu writes the type of each number before it."""
    return re.sub(r"\([a-z ]+\)(?=-?\d)", "", kernel).partition("(")[0]


def call_all(programs: str) -> None:
    """Every one of CALLS, and of each prefill kernel that the library adds."""
    library = MixerLibrary(Path(programs) / "libelastic_plugins.so")
    new = [(1, _TOKENS, name) for name in KERNELS if name not in {"auto", "decode_step", "scan_prefill"}]
    for batch, tokens, kernel in (*CALLS, *new):
        size = Size(batch, tokens, **LAYER_12B)
        try:
            library.enqueue(MixerSet(size, "cuda", 0, library).args(), kernel)
        except MixerError as refusal:
            print(f"{kernel}: {refusal}", file=sys.stderr)
        torch.cuda.synchronize()
    if ATTENTION.is_dir():
        _call_attention(Path(programs))


def _call_attention(programs: Path) -> None:
    from device_check.attention_times import AttentionLibrary, AttentionSet, Shape  # noqa: PLC0415 (where the op is)

    library = AttentionLibrary(programs / "libelastic_plugins.so")
    for kernel, tokens, before in (("decode", 1, 32767), ("prefill", 1024, 7168)):
        shape = Shape(1, tokens, 40, 8, 128, before + tokens + 1)
        library.enqueue(AttentionSet(shape, before, "cuda", 0, library).args(), kernel)
        torch.cuda.synchronize()
