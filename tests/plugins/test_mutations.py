"""Kernels broken on purpose: each fault must be caught by a row of the matrix."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from mamba2_mixer.testing.cases import Case, errors, matrix, tolerances
from mamba2_mixer.testing.runner import PLUGINS, QUICK, CaseError, HostBuild, run_case
from patches import every_third, pattern

FLOAT32, SCAN = "mamba2_mixer/launch_float32.cu", "mamba2_mixer/launch_scan.cu"
CHUNK = "mamba2_mixer/launch_chunk.cu"
CHUNK_FILE, SCALARS, VIEW = "chunk_prefill.cuh", "chunk_scalars.cuh", "chunk_view.cuh"


@dataclass(frozen=True)
class Mutation:
    """Replaces all `count` of `old` by `new` in a file of mamba2_mixer/; `units`: what to rebuild."""

    file: str
    old: str
    new: str
    units: tuple[str, ...] = (FLOAT32,)
    count: int = 1


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
CHUNK_MUTATIONS = {
    "copies not waited for": Mutation(CHUNK_FILE, "wait_async<0>();", "", (CHUNK,)),
    "copies in no group": Mutation(CHUNK_FILE, "commit_async();\n  ChunkState", "ChunkState", (CHUNK,)),
    "missing barrier before a chunk": Mutation(
        CHUNK_FILE, "__syncthreads();  // the chunk,", "// the chunk,", (CHUNK,)
    ),
    "missing barrier after the state has been read": Mutation(
        CHUNK_FILE, "__syncthreads();  // C, the state's copy", "// C, the state's copy", (CHUNK,)
    ),
    "wrong stage": Mutation(CHUNK_FILE, "const int stage = i % 2;", "const int stage = (i + 1) % 2;", (CHUNK,)),
    "one stage for two chunks": Mutation(CHUNK_FILE, "(i + 1) % 2, tiles, raw", "i % 2, tiles, raw", (CHUNK,)),
    "tokens after a token": Mutation(
        CHUNK_FILE, "row >= column ? product * weight : 0.f;", "product * weight;", (CHUNK,)
    ),
    "a token without itself": Mutation(CHUNK_FILE, "row >= column ?", "row > column ?", (CHUNK,)),
    "a part too few": Mutation(CHUNK_FILE, "pair <= place.part / 2; ++pair", "pair < place.part / 2; ++pair", (CHUNK,)),
    "decay not restarted": Mutation(
        SCALARS,
        "const float part_end",
        "const float before = scalars.at(Scalar::kCum, kChunk - 1);"
        "if (before < 0.f) cum[0] += before, cum[1] += before;"
        "const float part_end",
        (CHUNK,),
    ),
    "decay of the token before": Mutation(SCALARS, "cum[1] = through;", "cum[1] = cum[0];", (CHUNK,)),
    "tail with dt": Mutation(VIEW, "* step, token < tokens);", "* step, token < tokens || kind == 0);", (CHUNK,)),
    "tail one too long": Mutation(VIEW, "* step, token < tokens);", "* step, token <= tokens);", (CHUNK,)),
    "tail one too short": Mutation(VIEW, "pass * kRows < there);", "pass * kRows + 1 < there);", (CHUNK,)),
    "tail not zero": Mutation(
        VIEW, "if (kEveryThread || (begin < kRows && row < kChunk))", "if (begin < kRows && row < tokens)", (CHUNK,)
    ),
    "columns past the segment's end": Mutation(
        VIEW, "column < rows.count ? tokens - begin : 0;", "tokens - begin;", (CHUNK,)
    ),
    "y past the length": Mutation(
        CHUNK_FILE,
        "if (!kWhole && first + row >= block.length) continue;",
        "if (!kWhole && first + row > block.length) continue;",
        (CHUNK,),
    ),
    "y of one row less": Mutation(
        CHUNK_FILE,
        "if (!kWhole && first + row >= block.length) continue;",
        "if (!kWhole && first + row + 1 >= block.length) continue;",
        (CHUNK,),
    ),
    "last chunk taken for a whole one": Mutation(CHUNK_FILE, "first + kChunk <= block.length &&", "", (CHUNK,)),
    "part of a head taken for a whole block": Mutation(CHUNK_FILE, "&& block.channels == kWidth)", ")", (CHUNK,)),
    "y past the head's channels": Mutation(
        CHUNK_FILE,
        "if (!kWhole && channel(n) >= block.channels) continue;",
        "if (!kWhole && channel(n) > block.channels) continue;",
        (CHUNK,),
    ),
    "state not decayed": Mutation(CHUNK_FILE, "state.multiply(factor);", "", (CHUNK,)),
    "state's copy not handed over": Mutation(
        CHUNK_FILE, "factor);\n    state.hand_over(tiles.state());", "factor);", (CHUNK,)
    ),
    "state in its old unit": Mutation(
        SCALARS, "float factor = decay * (state.unit * into_unit);", "float factor = decay;", (CHUNK,)
    ),
    "state's unit too small": Mutation(SCALARS, "* 0x1p-15f;", "* 0x1p-24f;", (CHUNK,)),
    "units of rows left out": Mutation(SCALARS, "fmaxf(largest[i],", "fmaxf(0.f * largest[i],", (CHUNK,)),
    "a part's rows in another's unit": Mutation(
        SCALARS, "scalars.at(Scalar::kUnit, token) = inverse;", "scalars.at(Scalar::kUnit, token) = 1.f;", (CHUNK,)
    ),
    "what the state brings not decayed": Mutation(
        SCALARS, "quick_exp2(cum[i]) * (state.unit", "1.f * (state.unit", (CHUNK,)
    ),
    "swapped group": Mutation(VIEW, "head / heads_per_group(shape)", "head % shape.groups", (CHUNK,)),
    "channels of another part of the head": Mutation(
        VIEW, "static_cast<int>(blockIdx.x) % tiles * kWidth", "0 * tiles * kWidth", (CHUNK,)
    ),
    "D skip forgotten": Mutation(SCALARS, "= skip * raw[kChunk + token];", "= 0.f * skip;", (CHUNK,)),
    "operands without a unit": Mutation(
        "conv_operands.cuh", "power_of_two_above(largest_of_segment(values, exists))", "1.f"
    ),
    "unit of one lane": Mutation("conv_operands.cuh", "known < place.lanes - known ? known", "known < 0 ? known"),
    "unit of a power of two of lanes": Mutation("conv_operands.cuh", ": place.lanes - known;", ": 0;"),
    "unit of another segment's lanes": Mutation("conv_operands.cuh", ": lane - place.lanes)", ": lane)"),
    "padding not zero": Mutation("conv_operands.cuh", "operands.at[v / 2] = exists ?", "operands.at[v / 2] = true ?"),
    "operands past the segment's end": Mutation("conv_operands.cuh", "if (channel < count)", "if (true)"),
    "batches of operands that overlap": Mutation(
        "conv_operands.cuh", "first += 2 * kOperandBatch", "first += kOperandBatch"
    ),
    "a batch of operands late": Mutation(
        "conv_operands.cuh", "load(even, first + 2 * kOperandBatch)", "load(even, first)"
    ),
    "dt of a tile's first tokens only": Mutation(
        "conv_prefill.cuh", "begin < tile.end; begin +=", "begin < tile.begin + 1; begin +="
    ),
    "operands past the length": Mutation("conv_operands.cuh", "if (first + i >= end) continue;", ""),
    "a power of two sixteen times too small": Mutation(
        "maths.h", "exponent + kOne : kLargest", "exponent - 3 * kOne : kLargest", (FLOAT32, CHUNK)
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


CHUNK_SUITE = (
    "chunks T=129",
    "chunks length=65 of 201",
    "chunks scale=100000.0",
    "chunks N=60",
    "chunks P=100",
    "chunks ragged",
)
NARROW_SUITE = tuple(row.replace("chunks ", "chunks narrow, ") for row in CHUNK_SUITE)


def build_mutant(mutation: Mutation, build: HostBuild, objects: dict[str, Path], folder: Path) -> Path:
    plugins = folder / "plugins"
    shutil.copytree(PLUGINS, plugins, ignore=shutil.ignore_patterns("__pycache__", "build*"))
    path = plugins / "mamba2_mixer" / mutation.file
    text = path.read_text()
    patched, count = re.subn(pattern(mutation.old), lambda _: mutation.new, text)
    assert count == mutation.count, f"{mutation.file} holds {count} of {mutation.old!r}"
    path.write_text(patched)
    # A mutant runs a few cases: to optimise it takes g++ longer than that gains.
    fresh = replace(build, plugins=plugins, strict=False, optimize=False).compile(mutation.units, folder)
    return build.link({**objects, **fresh}.values(), folder / "mutant")


def catch(runner: Path, case: Case, folder: Path) -> str:
    """Why the case fails, empty when it passes."""
    try:
        data, result = run_case([str(runner)], case, folder)
    except CaseError as error:
        return str(error)
    found, bounds = errors(case, data, result), tolerances(case)
    return "".join(f"{name} {error:g} " for name, error in found.items() if not error <= bounds[name])


def why_caught(mutant: Path, folder: Path, suite: tuple[str, ...] = SUITE) -> str:
    """Why a row fails. Several seeds: a missing barrier shows only when the order of threads brings it out."""
    rows = matrix()
    tried = (catch(mutant, replace(rows[row], seed=seed), folder) for seed in range(2) for row in suite)
    return next(filter(None, tried), "")


def test_every_mutation_finds_its_lines() -> None:
    """Of those too that are slow to try."""
    for name, mutation in (MUTATIONS | CHUNK_MUTATIONS).items():
        text = (PLUGINS / "mamba2_mixer" / mutation.file).read_text()
        assert len(re.findall(pattern(mutation.old), text)) == mutation.count, name


@pytest.mark.parametrize("name", every_third(MUTATIONS))
def test_mutation_is_caught(name: str, quick_objects: dict[str, Path], tmp_path: Path) -> None:
    assert why_caught(build_mutant(MUTATIONS[name], QUICK, quick_objects, tmp_path), tmp_path)


@pytest.mark.parametrize("name", every_third(CHUNK_MUTATIONS))
def test_mutation_of_chunk_prefill_is_caught(name: str, quick_objects: dict[str, Path], tmp_path: Path) -> None:
    mutant = build_mutant(CHUNK_MUTATIONS[name], QUICK, quick_objects, tmp_path)
    assert why_caught(mutant, tmp_path, CHUNK_SUITE)
    assert why_caught(mutant, tmp_path, NARROW_SUITE)  # the same source, shared out among half as many warps


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
    every_unit = replace(UNBROKEN, units=(FLOAT32, SCAN, CHUNK))
    runner, rows = build_mutant(every_unit, QUICK, quick_objects, tmp_path), matrix()
    every = (*SUITE, *CHUNK_SUITE)
    assert {row: catch(runner, rows[row], tmp_path) for row in every} == dict.fromkeys(every, "")
