"""Kernels under the thread sanitizer: no access but what barriers, the waits for copies and counters order."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_attention_mutations as attention_mutations
from cached_attention.testing import cases as attention_cases
from cached_attention.testing import runner as attention
from mamba2_mixer.testing.cases import matrix
from mamba2_mixer.testing.runner import RACES, CaseError, HostBuild, run_case, run_cases
from mutants import Mutation, build_mutant
from patches import the_first
from shim_probe import build_probe
from test_chunk_mutations import MUTATIONS as CHUNK
from test_mutations import MUTATIONS
from test_resident_mutations import MUTATIONS as RESIDENT

BUILD = HostBuild(watch=RACES)
ATTENTION_BUILD = attention.AttentionBuild(float16_only=True, watch=RACES)
MATRIX, ATTENTION_MATRIX = matrix(), attention_cases.matrix()

#: Of each kernel what comes to every barrier: three chunks or more, parts that are joined, a second call.
ROWS = (
    "prefill base",
    "decode base",
    "continuations, aliased=True",
    "chunks T=129",
    "chunks gated, P=64",
    "chunks resident, T=129",
    "chunks resident, gated, P=56",
)
ATTENTION_ROWS = ("prefill base", "decode base", "T=65", "decode multiprocessors=64", "calls that follow each other")


@pytest.fixture(scope="module")
def probe(race_objects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_probe(BUILD, race_objects, tmp_path_factory.mktemp("race_probe"))


@pytest.mark.parametrize("what", ["good", "shuffles", "zeros", "empty_group", "meetings", "last_block"])
def test_what_is_ordered_is_no_race(probe: Path, what: str) -> None:
    subprocess.run([str(probe), what], capture_output=True, check=True)


@pytest.mark.parametrize(
    "what",
    [
        "missing_barrier",
        "ordered_by_a_shuffle",
        "rows_of_other_lanes",
        "copy_read_early",
        "copy_waited_for_by_another",
        "last_block_without_a_fence",
        "constant_that_is_written",
    ],
)
def test_what_nothing_orders_is_a_race(probe: Path, what: str) -> None:
    done = subprocess.run([str(probe), what], capture_output=True, check=False)
    assert done.returncode != 0
    assert b"SUMMARY: ThreadSanitizer: data race" in done.stderr


def why_not(outcomes: dict[str, Any]) -> dict[str, str]:
    return {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, str)}


def check(names: tuple[str, ...], objects: dict[str, Path], folder: Path) -> None:
    runner = BUILD.link(objects.values(), folder / "case_runner")
    assert why_not(run_cases([str(runner)], {name: MATRIX[name] for name in names}, folder, timeout=3000)) == {}


def check_attention(names: tuple[str, ...], objects: dict[str, Path], folder: Path) -> None:
    cases = {name: ATTENTION_MATRIX[name] for name in names}
    program = ATTENTION_BUILD.link(objects.values(), folder / "attention_cases")
    assert why_not(attention.run_cases([str(program)], cases, folder, timeout=3000)) == {}


def test_the_mixers_kernels_have_no_race(race_objects: dict[str, Path], tmp_path: Path) -> None:
    check(ROWS, race_objects, tmp_path)


def test_attention_has_no_race(race_attention_objects: dict[str, Path], tmp_path: Path) -> None:
    check_attention(ATTENTION_ROWS, race_attention_objects, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_case_of_the_mixer_has_a_race(race_objects: dict[str, Path], tmp_path: Path) -> None:
    check(tuple(MATRIX), race_objects, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_case_of_attention_has_a_race(race_attention_objects: dict[str, Path], tmp_path: Path) -> None:
    narrow = tuple(name for name, case in ATTENTION_MATRIX.items() if case.dtype == "float16")
    check_attention(narrow, race_attention_objects, tmp_path)


def of_case(mutations: dict[str, Mutation], case: str, *names: str) -> dict[str, tuple[Mutation, str]]:
    return {f"{case}, {name}": (mutations[name], case) for name in names}


#: Each is run in the order of threads in which nothing goes wrong, by a case that comes there. No result shows the
#: first two: on this machine everybody sees everything at once.
BROKEN = {
    "the last block does not fence": (
        Mutation("decode_step.cuh", "if (is_last[0]) fence_acquire();", ""),
        "decode base",
    ),
    "other blocks' values read as what nobody writes": (
        Mutation("decode_step.cuh", "return load_shared_level(q + c);", "return Input<float>(q).pack<4>(c);"),
        "decode base",
    ),
    **of_case(
        MUTATIONS,
        "decode base",
        "decode: missing barrier before shared values are read",
        "decode: last block does not wait for its own threads",
    ),
    **of_case(
        MUTATIONS,
        "prefill base",
        "scan: chunk refilled while it is read",
        "scan: chunk read before it is there",
        "norm: missing barrier in the block's sum",
    ),
    **of_case(
        CHUNK,
        "chunks T=129",
        "missing barrier before a chunk",
        "missing barrier after the state has been read",
        "B and x copied while the chunk before is read",
        "C copied while it is read",
        "tokens not waited for",
        "tokens waited for a group too late",
    ),
    **of_case(
        RESIDENT,
        "chunks resident, T=129",
        "missing barrier before the first phase",
        "missing barrier before the second phase",
        "copies waited for at the end",
        "B and C copied while they are read",
        "x copied over the one that y is stored by",
        "x copied while the chunk before is stored",
        "scalars written while they are read",
    ),
}
BROKEN_ATTENTION = {
    "wait: for the query": "prefill base",
    "wait: for the keys": "prefill base",
    "wait: for the values": "prefill base",
    "barrier: query read before it is there": "prefill base",
    "barrier: keys read before they are there": "prefill base",
    "barrier: keys refilled while they are read": "T=65",
    "barrier: sums over values that are still read": "decode base",
    "barrier: sums joined before they are there": "decode base",
    "barrier: factors of parts before they are there": "decode multiprocessors=64",
    "barrier: parts joined before they are there": "decode multiprocessors=64",
}


@pytest.mark.parametrize("name", the_first(BROKEN, 2))
def test_broken_kernel_of_the_mixer_has_a_race(name: str, race_objects: dict[str, Path], tmp_path: Path) -> None:
    mutation, case = BROKEN[name]
    mutant = build_mutant(mutation, BUILD, race_objects, tmp_path)
    with pytest.raises(CaseError, match="SUMMARY: ThreadSanitizer: data race"):
        run_case([str(mutant)], replace(MATRIX[case], order="forward"), tmp_path)


@pytest.mark.parametrize("name", the_first(BROKEN_ATTENTION, 1))
def test_broken_attention_has_a_race(name: str, race_attention_objects: dict[str, Path], tmp_path: Path) -> None:
    mutation, case = attention_mutations.MUTATIONS[name], ATTENTION_MATRIX[BROKEN_ATTENTION[name]]
    mutant = attention_mutations.build_mutant(mutation, ATTENTION_BUILD, race_attention_objects, tmp_path)
    with pytest.raises(CaseError, match="SUMMARY: ThreadSanitizer: data race"):
        attention.run_case([str(mutant)], replace(case, order="forward"), tmp_path)
