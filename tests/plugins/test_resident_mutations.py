"""chunk_resident broken on purpose; what it shares with chunk_prefill is broken in test_chunk_mutations.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mamba2_mixer.testing.cases import matrix
from mamba2_mixer.testing.runner import PLUGINS, QUICK, HostBuild
from mutants import CHUNK, RESIDENT, Mutation, build_mutant, catch, check_patterns, why_caught
from patches import every_sixth, pattern
from test_chunk_mutations import RESIDENT_SUITE, SCALARS

#: Of no other kernel.
OWN = ("chunk_resident.cuh", "resident_scanning.cuh", "resident_tiles.cuh", "resident_weighing.cuh")
WRITE = "weighing.write(i + 1, ChunkScalars(scalar_values, (i + 1) % 2));"


def broken(old: str, new: str, shared: str = "") -> Mutation:
    """In the file that both kernels have, or in the one of chunk_resident's own that has these lines."""
    if shared:  # of a function that two units have, linked programs have one
        return Mutation(shared, old, new, (CHUNK, RESIDENT))
    texts = {name: (PLUGINS / "mamba2_mixer" / name).read_text() for name in OWN}
    return Mutation(next(name for name, text in texts.items() if re.search(pattern(old), text)), old, new, (RESIDENT,))


MUTATIONS = {
    "copies not waited for": broken("wait_async<0>();", ""),
    "copies waited for by one warp": broken("wait_async<0>();\n    if", "if (warp == 2) wait_async<0>();\n    if"),
    "copies waited for at the end": broken("wait_async<0>();", "if (chunk >= chunks) wait_async<0>();"),
    "copies of B and C in no group": broken("view.b, chunk);\n    commit_async();", "view.b, chunk);"),
    "copies of x in no group": broken("view.x, chunk);\n    commit_async();", "view.x, chunk);"),
    "missing barrier before the first phase": broken("meet<1, kThreads>();", ""),
    "missing barrier before the second phase": broken("meet<2, kThreads>();", ""),
    "one kind of warp that leaves out a barrier": broken(
        "Block::begin_second_phase();  // the weighted products are there", ""
    ),
    "kinds of warps at different barriers": broken(
        "Block::begin_first_phase();  // the chunk's tokens", "Block::begin_second_phase();  // the chunk's tokens"
    ),
    "B and C copied while they are read": broken(
        "weighing.weigh_chunk(i % 2,", "weighing.stage_rows(i + 2); weighing.weigh_chunk(i % 2,"
    ),
    "x copied over the one that y is stored by": broken(
        "tiles.x(chunk % 2), view.x", "tiles.x((chunk + 1) % 2), view.x"
    ),
    "x copied while the chunk before is stored": broken(
        WRITE,
        f"{WRITE} if (warp == Block::kScanning + 2 && (i + 2) * kChunk < place.length) "
        "stage_tile<kWarp>(tiles.x(i % 2), view.x, (i + 2) * kChunk, chunk_tokens(place, (i + 2) * kChunk), "
        "threadIdx.x % kWarp);",
    ),
    "scalars written while they are read": broken(
        "Block::begin_second_phase();  // B, C and the scalars",
        f"{WRITE} Block::begin_second_phase();  // B, C and the scalars",
    ),
    "y stored by the next chunk's scalars": broken("staged_(stage * kStaged * kChunk)", "staged_(0)", SCALARS),
    "weighted parts in each other's place": broken("row_part * (row_part + 1) / 2 + part", "row_part + part"),
    "a part of tokens not weighed": broken(", weigh_rows<0>(stage, scalars);", ";"),
    "diagonal taken for what is before it": broken("if (part == kRow)", "if (part > kRow)"),
    "a part's own tokens left out": broken("k <= m; ++k", "k < m; ++k"),
    "x taken for its transpose": broken(
        "transpose(x[k], of_x);",
        "of_x[0] = {{x[k].pairs[0], x[k].pairs[1]}}, of_x[1] = {{x[k].pairs[2], x[k].pairs[3]}};",
    ),
    "channels of the state exchanged": broken(
        "multiply_row(y[m], load_a(tiles.c(stage), m * kPart, k * kPart), s);",
        "{ const FragmentB t[2] = {s[1], s[0]}; multiply_row(y[m], load_a(tiles.c(stage), m * kPart, k * kPart), t); }",
    ),
    "what the state brings not decayed": broken("y[m][n].at[2 * r] *= carry, ", ""),
    "state not decayed": broken("multiply(state.at, scalars.factor());", ""),
    "state of tokens not weighed": broken("scale_columns<Operand>(x[k], weight)", "x[k]"),
    "state without its unit": broken("inverse_power(into_unit_);", "1.f;", SCALARS),
    "state in another unit than the scalars'": broken("weighing.begin(bound,", "weighing.begin(2.f * bound,"),
    "state of another warp's channels": broken("view.state + first_channel * rows", "view.state"),
    "channels of the state past the block's": broken("channel < channels && row < rows", "row < rows"),
    "rows of the state past N": broken("channel < channels && row < rows", "channel < channels"),
    "y past the length": broken("first + row >= block.length) continue;", "first + row > block.length) continue;"),
    "y of one row less": broken("first + row >= block.length) continue;", "first + row + 1 >= block.length) continue;"),
    "last chunk taken for a whole one": broken("first + kChunk <= block.length &&", ""),
    "part of a head taken for a whole block": broken("&& channels >= kPart)", ")"),
    "y past the head's channels": broken(
        "channel(n) >= block.channels) continue;", "channel(n) > block.channels) continue;"
    ),
    "wrong stage": broken("scanning.advance(tiles, i % 2, scalars);", "scanning.advance(tiles, (i + 1) % 2, scalars);"),
    "an idle row's state half kept": broken("keep_state<Block::kThreads>", "keep_state<2 * Block::kThreads>"),
}
SUITE = (*RESIDENT_SUITE, "chunks resident, P=56", "chunks resident, length=0 of 201")

#: Of what y is multiplied by, which chunk_resident loads itself. A load of too much is wrong where memory ends:
#: only the sanitizer sees it.
GATE = {
    "gate past the last token": broken("(token(0, 0) < last ? token(0, 0) : last)", "token(0, 0)"),
    "gate of the chunk's first token": broken("(token(0, 0) < last ? token(0, 0) : last)", "0"),
    "gate further past the last token": broken("if (token(0, 0) + (i + 1) * 8 <= last) at =", "at ="),
    "gate past the token's row": broken("output.load(at + n * 8)", "output.load(at + n * 48)"),
    "gate of the token before the last": broken("(i + 1) * 8 <= last)", "(i + 1) * 8 < last)"),
    "gate of one half of the channels": broken("output.load(at + n * 8)", "output.load(at)"),
    "gate of another row": broken("raw[m][r][n]);", "raw[m][0][n]);"),
}
GATE_SUITE = ("chunks resident, gated, smallest", "chunks resident, gated, P=56")


def test_every_suite_row_is_of_chunk_resident() -> None:
    assert {matrix()[row].kernel for row in SUITE} == {"chunk_prefill_resident"}
    assert {matrix()[row].kernel for row in GATE_SUITE} == {"chunk_prefill_gated_resident"}


def test_every_mutation_finds_its_lines() -> None:
    """Of those too that are slow to try."""
    check_patterns(MUTATIONS | GATE)


@pytest.mark.parametrize("name", every_sixth(MUTATIONS))
def test_mutation_of_chunk_resident_is_caught(name: str, quick_objects: dict[str, Path], tmp_path: Path) -> None:
    assert why_caught(build_mutant(MUTATIONS[name], QUICK, quick_objects, tmp_path), tmp_path, SUITE)


@pytest.mark.parametrize("name", every_sixth(GATE))
def test_mutation_of_the_gate_is_caught(name: str, case_objects: dict[str, Path], tmp_path: Path) -> None:
    assert why_caught(build_mutant(GATE[name], HostBuild(), case_objects, tmp_path), tmp_path, GATE_SUITE)


def test_unbroken_chunk_resident_passes_the_suite(quick_objects: dict[str, Path], tmp_path: Path) -> None:
    runner, rows = QUICK.link(quick_objects.values(), tmp_path / "case_runner"), matrix()
    assert {row: catch(runner, rows[row], tmp_path) for row in SUITE} == dict.fromkeys(SUITE, "")
