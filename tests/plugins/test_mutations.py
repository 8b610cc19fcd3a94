"""Kernels broken on purpose: each fault must be caught by a row of the matrix."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from mamba2_mixer.testing.cases import Case, errors, matrix, tolerances
from mamba2_mixer.testing.runner import PLUGINS, QUICK, CaseError, HostBuild, run_case

FLOAT32, SCAN = "mamba2_mixer/launch_float32.cu", "mamba2_mixer/launch_scan.cu"


@dataclass(frozen=True)
class Mutation:
    """Replaces `old` by `new` in one file of mamba2_mixer/; `units` are the translation units to rebuild."""

    file: str
    old: str
    new: str
    units: tuple[str, ...] = (FLOAT32,)


MUTATIONS = {
    "decode: missing barrier before shared values are read": Mutation(
        "decode_step.cuh",
        "fill_token<T>(args, place, token);\n  __syncthreads();",
        "fill_token<T>(args, place, token);",
    ),
    "decode: last block does not wait for its own threads": Mutation(
        "decode_step.cuh", "tick\n  __syncthreads();", "tick\n"
    ),
    "scan: chunk refilled while it is read": Mutation(
        "scan_prefill.cuh", "__syncthreads();  // everybody is done", "// everybody is done", (SCAN,)
    ),
    "scan: chunk read before it is there": Mutation(
        "scan_prefill.cuh", "wait_async<1>();\n    __syncthreads();", "wait_async<1>();", (SCAN,)
    ),
    "norm: missing barrier in the block's sum": Mutation(
        "../common/device.cuh",
        "partial[threadIdx.x / kWarp] = value;\n  __syncthreads();",
        "partial[threadIdx.x / kWarp] = value;",
    ),
    "scan: tail one too long": Mutation(
        "scan_prefill.cuh", "first + t < place.length; ++t", "first + t <= place.length; ++t", (SCAN,)
    ),
    "scan: tail one too short": Mutation(
        "scan_prefill.cuh", "first + t < place.length; ++t", "first + t + 1 < place.length; ++t", (SCAN,)
    ),
    "decode: last row left out": Mutation(
        "decode_step.cuh",
        "begin + rows < shape.head_dim ? begin + rows : shape.head_dim;",
        "begin + rows < shape.head_dim ? begin + rows : shape.head_dim - 1;",
    ),
    "decode: rows past the head's end": Mutation(
        "decode_step.cuh", "begin + rows < shape.head_dim ? begin + rows : shape.head_dim;", "begin + rows;"
    ),
    "unmasked padding": Mutation(
        "tensors.cuh", "return length < 0 ? 0 :", "return length != 0 ? args.shape.tokens :", (FLOAT32, SCAN)
    ),
    "length 0 ignored": Mutation("decode_step.cuh", "if (length == 0) return", "if (length < 0) return"),
    "scan: swapped group": Mutation(
        "scan_prefill.cuh", "head / heads_per_group(shape)", "head % shape.groups", (SCAN,)
    ),
    "decode: swapped group": Mutation("decode_step.cuh", "head, head / heads,", "head, head % shape.groups,"),
    "B and C swapped": Mutation(
        "tensors.cuh",
        "inner_channels(shape) + group * shape.state_size;",
        "inner_channels(shape) + (shape.groups + group) % (2 * shape.groups) * shape.state_size;",
        (FLOAT32, SCAN),
    ),
    "conv state written past length": Mutation(
        "conv_prefill.cuh", "conv_input<T, kVec>(args, b, length - (", "conv_input<T, kVec>(args, b, shape.tokens - ("
    ),
    "conv: window one token late": Mutation(
        "conv_prefill.cuh", "first_token - (kTaps - 1) + k", "first_token - kTaps + k"
    ),
    "decode: conv state not moved on": Mutation(
        "decode_conv.cuh",
        "fresh[(k - 1) * conv_channels(args.shape)] = window[k];",
        "fresh[(k - 1) * conv_channels(args.shape)] = window[k - 1];",
    ),
    "decode: lane left out of a sum": Mutation(
        "decode_step.cuh", "for (int mask = 4; mask > 0;", "for (int mask = 2; mask > 0;"
    ),
    "scan: rows swapped between lanes": Mutation(
        "scan_prefill.cuh", "const bool odd = threadIdx.x & 2;", "const bool odd = threadIdx.x & 1;", (SCAN,)
    ),
    "padded columns not zero": Mutation(
        "decode_step.cuh", "channel < 0 ? 0.f : taps.value();", "channel < 0 ? 1.f : taps.value();"
    ),
    "scan: padded columns not zero": Mutation(
        "scan_prefill.cuh", "b_values[i] = c_values[i] = 0.f;", "b_values[i] = 0.f;", (SCAN,)
    ),
    "counter left standing": Mutation(
        "decode_step.cuh",
        "const unsigned limit = static_cast<unsigned>(place.blocks_per_group) - 1;",
        "const unsigned limit = static_cast<unsigned>(place.blocks_per_group);",
    ),
    "norm before gate": Mutation(
        "gated_norm.cuh", "return y[c] * silu(to_float(gate[c]));", "return y[c] + 0.f * to_float(gate[c]);"
    ),
    "D skip forgotten": Mutation(
        "scan_prefill.cuh", "fmaf(skip, x[out_row], y)", "fmaf(0.f * skip, x[out_row], y)", (SCAN,)
    ),
    "dt clamped at 0.001": Mutation("maths.h", "return dt < low ? low", "return dt < 1e-3f ? 1e-3f", (FLOAT32, SCAN)),
    "barrier only some threads reach": Mutation(
        "decode_step.cuh",
        "if (!last_of_group(args, place)) return;",
        "if (threadIdx.x > 64 || !last_of_group(args, place)) return;",
    ),
}
#: Nothing but the sanitizer can see it.
TOO_SMALL = Mutation(
    "decode_step.cuh", "ELASTIC_SHARED(float, gates, kMaxHeadDim);", "ELASTIC_SHARED(float, gates, 15);"
)
# Quick rows first; together they reach every line of the kernels.
SUITE = (
    "prefill base",
    "decode base",
    "decode N=30",
    "prefill N=30",
    "length=3 of 201",
    "prefill tiny decay",
    "decode tiny decay",
    "prefill P=80",
    "decode P=80",
    "continuations, aliased=True",
)


def build_mutant(mutation: Mutation, build: HostBuild, objects: dict[str, Path], folder: Path) -> Path:
    plugins = folder / "plugins"
    shutil.copytree(PLUGINS, plugins, ignore=shutil.ignore_patterns("__pycache__", "build*"))
    path = plugins / "mamba2_mixer" / mutation.file
    text = path.read_text()
    old = r"\s+".join(re.escape(word) for word in mutation.old.split())  # however it is laid out
    patched, count = re.subn(old, lambda _: mutation.new, text)
    assert count == 1, f"{mutation.file} holds {count} of {mutation.old!r}"
    path.write_text(patched)
    fresh = replace(build, plugins=plugins, strict=False).compile(mutation.units, folder)
    return build.link({**objects, **fresh}.values(), folder / "mutant")


def catch(runner: Path, case: Case, folder: Path) -> str:
    """Why the case fails, empty when it passes."""
    try:
        data, result = run_case([str(runner)], case, folder)
    except CaseError as error:
        return str(error)
    found, bounds = errors(case, data, result), tolerances(case)
    return "".join(f"{name} {error:g} " for name, error in found.items() if not error <= bounds[name])


def why_caught(mutant: Path, folder: Path) -> str:
    """Why a row fails. Several seeds: a missing barrier shows only when the order of threads brings it out."""
    rows = matrix()
    tried = (catch(mutant, replace(rows[row], seed=seed), folder) for seed in range(2) for row in SUITE)
    return next(filter(None, tried), "")


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutation_is_caught(name: str, quick_objects: dict[str, Path], tmp_path: Path) -> None:
    assert why_caught(build_mutant(MUTATIONS[name], QUICK, quick_objects, tmp_path), tmp_path)


def test_sanitizer_catches_a_shared_array_too_small(case_objects: dict[str, Path], tmp_path: Path) -> None:
    assert "AddressSanitizer" in why_caught(build_mutant(TOO_SMALL, HostBuild(), case_objects, tmp_path), tmp_path)


def test_unbroken_kernels_pass_the_suite(quick_objects: dict[str, Path], tmp_path: Path) -> None:
    runner, rows = QUICK.link(quick_objects.values(), tmp_path / "runner"), matrix()
    assert {row: catch(runner, rows[row], tmp_path) for row in SUITE} == dict.fromkeys(SUITE, "")
