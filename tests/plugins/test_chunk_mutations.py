"""chunk_prefill broken on purpose, what it shares with chunk_resident, and what makes the operands of both.

What only chunk_resident has is in test_resident_mutations.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from mamba2_mixer.testing.cases import matrix
from mamba2_mixer.testing.runner import QUICK
from mutants import CHUNK, FLOAT32, RESIDENT, Mutation, build_mutant, catch, check_patterns, why_caught
from patches import every_sixth

CHUNK_FILE, SCALARS, VIEW, WEIGHTS = "chunk_prefill.cuh", "chunk_scalars.cuh", "chunk_view.cuh", "chunk_weights.cuh"
BOTH = (CHUNK, RESIDENT)
MUTATIONS = {
    "copies not waited for": Mutation(CHUNK_FILE, "wait_async<0>();", "", (CHUNK,)),
    "copies in no group": Mutation(CHUNK_FILE, "commit_async();\n  ChunkState", "ChunkState", (CHUNK,)),
    "missing barrier before a chunk": Mutation(
        CHUNK_FILE, "__syncthreads();  // the chunk,", "// the chunk,", (CHUNK,)
    ),
    "missing barrier after the state has been read": Mutation(
        CHUNK_FILE, "__syncthreads();  // C, the state's copy", "// C, the state's copy", (CHUNK,)
    ),
    "wrong stage": Mutation(CHUNK_FILE, "const int stage = i % 2,", "const int stage = (i + 1) % 2,", (CHUNK,)),
    "one stage for two chunks": Mutation(CHUNK_FILE, "(i + 1) % 2, tiles);", "i % 2, tiles);", (CHUNK,)),
    "B and x copied while the chunk before is read": Mutation(
        CHUNK_FILE,
        "wait_async<0>(); __syncthreads();  // the chunk,",
        "wait_async<0>(); if (i + 1 < chunks) stage_b_and_x(view, place, next, (i + 1) % 2, tiles);\n"
        "__syncthreads();  // the chunk,",
        (CHUNK,),
    ),
    "C copied while it is read": Mutation(
        CHUNK_FILE,
        "(i + 1) % 2, tiles);",
        "(i + 1) % 2, tiles), stage_c(view, place, next, tiles);",
        (CHUNK,),
    ),
    "tokens after a token": Mutation(WEIGHTS, "row >= column ? product * weight : 0.f;", "product * weight;", BOTH),
    "a token without itself": Mutation(WEIGHTS, "row >= column ?", "row > column ?", BOTH),
    "a part too few": Mutation(CHUNK_FILE, "pair <= place.part / 2; ++pair", "pair < place.part / 2; ++pair", (CHUNK,)),
    "decay not restarted": Mutation(
        SCALARS,
        "cum_[1] = through;",
        "cum_[1] = through; if (chunk_end_ < 0.f) cum_[0] += chunk_end_, cum_[1] += chunk_end_;",
        BOTH,
    ),
    "decay of the token before": Mutation(SCALARS, "cum_[1] = through;", "cum_[1] = cum_[0];", BOTH),
    "tail with dt": Mutation(VIEW, "* step, token < tokens);", "* step, token < tokens || kind == 0);", BOTH),
    "tail one too long": Mutation(VIEW, "* step, token < tokens);", "* step, token <= tokens);", BOTH),
    "tail one too short": Mutation(VIEW, "pass * kRows < there);", "pass * kRows + 1 < there);", BOTH),
    "tail not zero": Mutation(
        VIEW, "if (kEveryThread || (begin < kRows && row < kChunk))", "if (begin < kRows && row < tokens)", BOTH
    ),
    "columns past the segment's end": Mutation(
        VIEW, "column < rows.count ? tokens - begin : 0;", "tokens - begin;", BOTH
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
    "state not decayed": Mutation(CHUNK_FILE, "multiply(state.at, factor);", "", (CHUNK,)),
    "state's copy not handed over": Mutation(
        CHUNK_FILE, "decays.factor());\n    state.hand_over(tiles.state());", "decays.factor());", (CHUNK,)
    ),
    "state in its old unit": Mutation(SCALARS, "factor_ = decay * state.unit * into_unit_;", "factor_ = decay;", BOTH),
    "state's unit too small": Mutation(SCALARS, "* 0x1p-15f;", "* 0x1p-24f;", BOTH),
    "units of rows left out": Mutation(SCALARS, "fmaxf(largest_[i],", "fmaxf(0.f * largest_[i],", BOTH),
    "a part's rows in another's unit": Mutation(
        SCALARS, "scalars.at(Scalar::kUnit, token) = inverse;", "scalars.at(Scalar::kUnit, token) = 1.f;", BOTH
    ),
    "what the state brings not decayed": Mutation(SCALARS, "quick_exp2(cum_[i]) * (before_", "1.f * (before_", BOTH),
    "swapped group": Mutation(VIEW, "head / heads_per_group(shape)", "head % shape.groups", BOTH),
    "channels of another part of the head": Mutation(
        VIEW, "static_cast<int>(blockIdx.x) % tiles * kWidth", "0 * tiles * kWidth", BOTH
    ),
    "D skip forgotten": Mutation(SCALARS, "= skip * raw[kChunk + token];", "= 0.f * skip;", BOTH),
    "operands without a unit": Mutation("conv_operands.cuh", "power_of_two_above(largest[t])", "1.f"),
    "unit of one lane": Mutation("conv_operands.cuh", "known < place.lanes - known ? known", "known < 0 ? known"),
    "unit of a power of two of lanes": Mutation("conv_operands.cuh", ": place.lanes - known;", ": 0;"),
    "unit of another segment's lanes": Mutation("conv_operands.cuh", ": lane - place.lanes)", ": lane)"),
    "padding not zero": Mutation("conv_operands.cuh", "operands.at[v / 2] = exists ?", "operands.at[v / 2] = true ?"),
    "operands past the segment's end": Mutation("conv_operands.cuh", "if (real && channel < count)", "if (real)"),
    "rounds of tokens that overlap": Mutation(
        "conv_operands.cuh", "first += kOperandRing)", "first += kOperandRing / 2)"
    ),
    "tokens not waited for": Mutation("conv_operands.cuh", "wait_async<kOperandRing / 2 - 1>();", ""),
    "tokens waited for a group too late": Mutation(
        "conv_operands.cuh", "wait_async<kOperandRing / 2 - 1>", "wait_async<kOperandRing / 2>"
    ),
    "tokens past the end still on their way at it": Mutation("conv_operands.cuh", "wait_async<0>();", ""),
    "tokens copied over those in use": Mutation(
        "conv_operands.cuh", "copy(i, first + i + ", "copy((i + 2) % kOperandRing, first + i + "
    ),
    "dt of a tile's first tokens only": Mutation(
        "conv_prefill.cuh", "begin < tile.end; begin +=", "begin < tile.begin + 1; begin +="
    ),
    "zeros past the segment's end": Mutation(
        "conv_operands.cuh", "&& end <= static_cast<int>(sizeof(float)) * place.channels;", ";"
    ),
    "operands past the length": Mutation(
        "conv_operands.cuh", "power_of_two_above(largest[t]), first + t < end", "power_of_two_above(largest[t]), true"
    ),
    "a power of two sixteen times too small": Mutation(
        "maths.h", "exponent + kOne : kLargest", "exponent - 3 * kOne : kLargest", (FLOAT32, *BOTH)
    ),
}
SUITE = (
    "chunks T=129",
    "chunks length=65 of 201",
    "chunks scale=100000.0",
    "chunks N=60",
    "chunks P=12",
    "chunks P=100",
    "chunks ragged",
)
RESIDENT_SUITE = tuple(row.replace("chunks ", "chunks resident, ") for row in SUITE)


def test_every_mutation_finds_its_lines() -> None:
    """Of those too that are slow to try."""
    check_patterns(MUTATIONS)


@pytest.mark.parametrize("name", every_sixth(MUTATIONS))
def test_mutation_of_chunk_prefill_is_caught(name: str, quick_objects: dict[str, Path], tmp_path: Path) -> None:
    mutation = MUTATIONS[name]
    mutant = build_mutant(mutation, QUICK, quick_objects, tmp_path)
    assert why_caught(mutant, tmp_path, SUITE)
    if mutation.units != (CHUNK,):
        assert why_caught(mutant, tmp_path, RESIDENT_SUITE)


def test_unbroken_kernels_pass_the_suite(quick_objects: dict[str, Path], tmp_path: Path) -> None:
    file, lines = CHUNK_FILE, "const int stage = i % 2,"
    unbroken = Mutation(file, lines, lines, (FLOAT32, CHUNK))
    runner, rows = build_mutant(unbroken, QUICK, quick_objects, tmp_path), matrix()
    assert {row: catch(runner, rows[row], tmp_path) for row in SUITE} == dict.fromkeys(SUITE, "")
