"""Narrow blocks of chunk_prefill broken on purpose: faults that eight warps would not show.

Those of the source that both share are tried on both in test_chunk_mutations.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from mamba2_mixer.testing.cases import matrix
from mamba2_mixer.testing.runner import QUICK
from mutants import CHUNK, FLOAT32, Mutation, build_mutant, catch, why_caught
from patches import every_third
from test_chunk_mutations import CHUNK_FILE, NARROW_SUITE, VIEW

MUTATIONS = {
    "a warp's second rows of the state taken for its first": Mutation(
        CHUNK_FILE, "State::row(m, 0) / kPart", "State::row(0, 0) / kPart", (CHUNK,)
    ),
    "rows of the state shared out as among eight warps": Mutation(
        CHUNK_FILE, "/ kWarp * kTiles + m) * kPart", "/ kWarp + m) * kPart", (CHUNK,)
    ),
    "half of the state handed over": Mutation(
        CHUNK_FILE,
        "i < kTiles * kParts; ++i) { const int m = i / kParts, n = i % kParts; ELASTIC_UNROLL "
        "for (int e = 0; e < 4; e += 2)",
        "i < kParts; ++i) { const int m = i / kParts, n = i % kParts; for (int e = 0; e < 4; e += 2)",
        (CHUNK,),
    ),
    "last eight channels taken for the eight before": Mutation(
        CHUNK_FILE,
        "b[0] = load_b(tile, row, column + n * 8);",
        "b[0] = load_b(tile, row, column + n * 8 - 8);",
        (CHUNK,),
    ),
    "two warps with the same tokens": Mutation(
        CHUNK_FILE, ": kRowParts - 1 - warp % kRowParts;", ": kRowParts - 1 - warp % 2;", (CHUNK,)
    ),
    "half of the units and dt not copied": Mutation(
        VIEW, "pass < kRawScalars * kChunk / kThreads;", "pass < kRawScalars * kChunk / 256;", (CHUNK,)
    ),
    "tiles copied as by eight warps": Mutation(VIEW, "kRows = kThreads / kPieces;", "kRows = 256 / kPieces;", (CHUNK,)),
    "an idle row's state kept as by eight warps": Mutation(CHUNK_FILE, "i += kThreads)", "i += 256)", (CHUNK,)),
    "zeros past the segment's end": Mutation(
        "conv_operands.cuh", "&& end <= static_cast<int>(sizeof(float)) * place.channels;", ";", (FLOAT32,)
    ),
}
SUITE = (*NARROW_SUITE, "chunks narrow, P=12")


def test_every_suite_row_is_of_narrow_blocks() -> None:
    assert {matrix()[row].kernel for row in SUITE} == {"chunk_prefill_narrow"}


@pytest.mark.parametrize("name", every_third(MUTATIONS))
def test_mutation_of_narrow_blocks_is_caught(name: str, quick_objects: dict[str, Path], tmp_path: Path) -> None:
    assert why_caught(build_mutant(MUTATIONS[name], QUICK, quick_objects, tmp_path), tmp_path, SUITE)


def test_unbroken_narrow_blocks_pass_the_suite(quick_objects: dict[str, Path], tmp_path: Path) -> None:
    runner, rows = QUICK.link(quick_objects.values(), tmp_path / "case_runner"), matrix()
    assert {row: catch(runner, rows[row], tmp_path) for row in SUITE} == dict.fromkeys(SUITE, "")
