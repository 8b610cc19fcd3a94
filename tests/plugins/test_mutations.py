"""Kernels broken on purpose: each fault must be caught by a row of the matrix.

Those of chunk_prefill are in test_chunk_mutations.py and test_resident_mutations.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mamba2_mixer.testing.cases import matrix
from mamba2_mixer.testing.runner import QUICK, HostBuild
from mutants import FLOAT32, SCAN, Mutation, build_mutant, catch, check_patterns, why_caught
from patches import every_sixth

MUTATIONS = {
    "decode: missing barrier before shared values are read": Mutation(
        "decode_step.cuh",
        "__syncthreads();  // the token's values before",
        "// the token's values before",
    ),
    "decode: last block does not wait for its own threads": Mutation(
        "decode_step.cuh", "__syncthreads();  // the block's gated values", "// the block's gated values"
    ),
    "scan: chunk refilled while it is read": Mutation(
        "scan_prefill.cuh", "__syncthreads();  // everybody is done", "// everybody is done", (SCAN,)
    ),
    "scan: chunk read before it is there": Mutation(
        "scan_prefill.cuh", "wait_async<1>();\n    __syncthreads();", "wait_async<1>();", (SCAN,)
    ),
    "scan: copies not waited for": Mutation("scan_prefill.cuh", "wait_async<1>();", "", (SCAN,)),
    "scan: this chunk's copies not waited for": Mutation(
        "scan_prefill.cuh", "wait_async<1>();", "wait_async<2>();", (SCAN,)
    ),
    "scan: copies in no group": Mutation("scan_prefill.cuh", "commit_async();\n    wait", "wait", (SCAN,)),
    "norm: missing barrier in the block's sum": Mutation(
        "../common/device.cuh",
        "__syncthreads();\n  float sum = 0.f;",
        "float sum = 0.f;",
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
        "views.cuh", "return length < 0 ? 0 :", "return length != 0 ? tokens :", (FLOAT32, SCAN)
    ),
    "decode: length 0 ignored": Mutation(
        "decode_step.cuh", "const bool real = length > 0;", "const bool real = length >= 0;"
    ),
    "decode: conv state moved on at length 0": Mutation(
        "decode_conv.cuh", "real ? input(k, v) : input(k - 1, v);", "real || k > 0 ? input(k, v) : input(k - 1, v);"
    ),
    "scan: swapped group": Mutation(
        "scan_prefill.cuh", "head / heads_per_group(shape)", "head % shape.groups", (SCAN,)
    ),
    "decode: swapped group": Mutation("decode_step.cuh", "group = head / heads", "group = head % shape.groups"),
    "B and C swapped": Mutation(
        "views.cuh",
        "inner_channels(shape) + group * shape.state_size;",
        "inner_channels(shape) + (shape.groups + group) % (2 * shape.groups) * shape.state_size;",
        (FLOAT32, SCAN),
    ),
    "conv state written past length": Mutation(
        "conv_prefill.cuh", "write_conv_state(view, tile.length);", "write_conv_state(view, args.shape.tokens);"
    ),
    "conv: window one token late": Mutation(
        "conv_prefill.cuh", "first_token - (kTaps - 1) + k", "first_token - kTaps + k"
    ),
    "decode: conv state not moved on": Mutation(
        "decode_conv.cuh",
        "real ? input(k, v) : input(k - 1, v);",
        "real ? input(k - 1, v) : input(k - 1, v);",
    ),
    "decode: norm of a group that is not whole": Mutation(
        "decode_step.cuh", "__syncthreads();  // the other blocks' ticks", "// the other blocks' ticks"
    ),
    "decode: row past the block's end": Mutation(
        "decode_step.cuh", "row < end && slice_column", "row <= end && slice_column", count=2
    ),
    "decode: columns past the state's end": Mutation(
        "decode_step.cuh", "slice_column(chunk) < columns)", "slice_column(chunk) <= columns)", count=2
    ),
    "norm: channels past the group's end counted": Mutation(
        "gated_norm.cuh", "if (first + i * kStride < channels) squares", "squares"
    ),
    "norm: channels past the group's end written": Mutation(
        "gated_norm.cuh", "if (c < channels) store_scaled", "if (c <= channels) store_scaled"
    ),
    "norm: first channels of a long group twice": Mutation(
        "gated_norm.cuh", "rest = first + kPacks * kStride;", "rest = first;"
    ),
    "conv: a batch of tokens past the end": Mutation(
        "conv_prefill.cuh", "if (first + i < end) store_pack", "store_pack"
    ),
    "conv: batches that overlap": Mutation("conv_prefill.cuh", "first += kConvBatch", "first += kConvBatch - 1"),
    "dt of tokens past the end": Mutation("conv_prefill.cuh", "if (begin + i < end)\n      out", "out"),
    "scan: columns past the state's end staged": Mutation(
        "scan_prefill.cuh", "if (at < count)", "if (at <= count)", (SCAN,)
    ),
    "scan: dt of the next token": Mutation(
        "scan_prefill.cuh", "view.dt + first + lane", "view.dt + first + lane + 1", (SCAN,)
    ),
    "decode: lane left out of a sum": Mutation(
        "decode_step.cuh", "for (int mask = 4; mask > 0;", "for (int mask = 2; mask > 0;"
    ),
    "scan: rows swapped between lanes": Mutation(
        "scan_prefill.cuh", "const bool odd = threadIdx.x & 2;", "const bool odd = threadIdx.x & 1;", (SCAN,)
    ),
    "padded columns not zero": Mutation(
        "decode_step.cuh", "if (!exists) value = {};", "if (!exists) value = {{1.f, 1.f}};"
    ),
    "scan: padded columns not zero": Mutation(
        "scan_prefill.cuh", "b_values[i] = c_values[i] = 0.f;", "b_values[i] = 0.f;", (SCAN,)
    ),
    "counter left standing": Mutation(
        "decode_step.cuh",
        "const unsigned limit = static_cast<unsigned>(blocks) - 1;",
        "const unsigned limit = static_cast<unsigned>(blocks);",
    ),
    "norm before gate": Mutation(
        "gated_norm.cuh", "raw.y.at[v] * silu(to_float(raw.z.at[v]));", "raw.y.at[v] + 0.f * to_float(raw.z.at[v]);"
    ),
    "D skip forgotten": Mutation(
        "scan_prefill.cuh", "fmaf(skip, x[out_row], sum)", "fmaf(0.f * skip, x[out_row], sum)", (SCAN,)
    ),
    "dt clamped at 0.001": Mutation("maths.h", "return dt < low ? low", "return dt < 1e-3f ? 1e-3f", (FLOAT32, SCAN)),
    "barrier only some threads reach": Mutation(
        "decode_step.cuh",
        "if (last_of_group(view.counter, place.blocks_per_group))",
        "if (threadIdx.x <= 64 && last_of_group(view.counter, place.blocks_per_group))",
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
    "decode N=64",
    "prefill N=30",
    "length=3 of 201",
    "prefill tiny decay",
    "decode tiny decay",
    "prefill P=80",
    "decode P=80",
    "continuations, aliased=True",
)


def test_every_mutation_finds_its_lines() -> None:
    """Of those too that are slow to try."""
    check_patterns(MUTATIONS)


@pytest.mark.parametrize("name", every_sixth(MUTATIONS))
def test_mutation_is_caught(name: str, quick_objects: dict[str, Path], tmp_path: Path) -> None:
    assert why_caught(build_mutant(MUTATIONS[name], QUICK, quick_objects, tmp_path), tmp_path, SUITE)


#: Built as mutants are, with nothing broken: where it fails, no mutant is caught by its fault.
UNBROKEN = replace(TOO_SMALL, new=TOO_SMALL.old)


@pytest.mark.parametrize(
    ("mutation", "says"), [(TOO_SMALL, "AddressSanitizer"), (UNBROKEN, "")], ids=["broken", "unbroken"]
)
def test_sanitizer_catches_a_shared_array_too_small(
    mutation: Mutation, says: str, case_objects: dict[str, Path], tmp_path: Path
) -> None:
    found = catch(build_mutant(mutation, HostBuild(), case_objects, tmp_path), matrix()["decode base"], tmp_path)
    assert says in found
    assert bool(says) == bool(found), found


def test_unbroken_kernels_pass_the_suite(quick_objects: dict[str, Path], tmp_path: Path) -> None:
    every_unit = replace(UNBROKEN, units=(FLOAT32, SCAN))
    runner, rows = build_mutant(every_unit, QUICK, quick_objects, tmp_path), matrix()
    assert {row: catch(runner, rows[row], tmp_path) for row in SUITE} == dict.fromkeys(SUITE, "")
