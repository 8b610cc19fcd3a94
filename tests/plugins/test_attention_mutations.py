"""Attention kernels broken on purpose: each fault must be caught by a row of the matrix."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from cached_attention.testing.cases import Case, errors, make_data, matrix, tolerances
from cached_attention.testing.runner import QUICK, AttentionBuild, run_case
from mamba2_mixer.testing.runner import PLUGINS, CaseError
from patches import every_sixth, pattern

KERNELS = "cached_attention/launch_float16.cu"


@dataclass(frozen=True)
class Mutation:
    """Replaces `old`, which is there once, by `new` in a file of cached_attention/."""

    file: str
    old: str
    new: str


MUTATIONS = {
    "wait: for the query": Mutation("attend.cuh", "wait_async<1>();", "wait_async<2>();"),
    "wait: for the keys": Mutation(
        "attend.cuh", "wait_async<0>();\n    __syncthreads();  // the keys", "__syncthreads();  // the keys"
    ),
    "wait: for the values": Mutation(
        "attend.cuh", "wait_async<0>();\n    __syncthreads();  // the values", "__syncthreads();  // the values"
    ),
    "group: keys and values in one": Mutation(
        "attend.cuh",
        "wait_async<0>();\n    __syncthreads();  // the values",
        "wait_async<1>();\n    __syncthreads();  // the values",
    ),
    "barrier: query read before it is there": Mutation("attend.cuh", "__syncthreads();  // the query", "// the query"),
    "barrier: keys read before they are there": Mutation("attend.cuh", "__syncthreads();  // the keys", "// the keys"),
    "barrier: keys refilled while they are read": Mutation(
        "attend.cuh", "__syncthreads();  // the values", "// the values"
    ),
    "barrier: sums over values that are still read": Mutation(
        "attend.cuh", "__syncthreads();  // nobody reads the last", "// nobody reads the last"
    ),
    "barrier: sums joined before they are there": Mutation(
        "attend.cuh", "__syncthreads();  // all warps", "// all warps"
    ),
    "barrier: factors of parts before they are there": Mutation(
        "merge.cuh", "__syncthreads();  // the factors", "// the factors"
    ),
    "barrier: parts joined before they are there": Mutation(
        "merge.cuh", "__syncthreads();  // all threads", "// all threads"
    ),
    "barrier: that only some threads reach": Mutation(
        "attend.cuh", "__syncthreads();  // the keys", "if (threadIdx.x < 96) __syncthreads();  // the keys"
    ),
    "diagonal: unmasked": Mutation("attend.cuh", "hide_unseen<Traits>(scores, first, limits);", "(void)limits;"),
    "diagonal: a row too late": Mutation(
        "attend_softmax.cuh", "key > limits.last[i / 2]", "key > limits.last[i / 2] + 1"
    ),
    "diagonal: a row too early": Mutation(
        "attend_softmax.cuh", "key > limits.last[i / 2]", "key >= limits.last[i / 2]"
    ),
    "diagonal: tiles taken for seen by all": Mutation(
        "attend.cuh", "first + Traits::kKeys > place.seen_by_all", "first > place.seen_by_all"
    ),
    "diagonal: of the tile's first token for all": Mutation(
        "attend_softmax.cuh", "(place.first_row + known) / group_heads(shape)", "place.first_row / group_heads(shape)"
    ),
    "splits: overlap": Mutation("attend_stage.cuh", "place.split * share,", "place.split * (share - 1),"),
    "splits: a tile left out": Mutation(
        "attend_stage.cuh",
        "divide_up(divide_up(seen, Traits::kKeys), cut.splits)",
        "(seen / Traits::kKeys / cut.splits)",
    ),
    "merge: of empty parts": Mutation("merge.cuh", "if (own != 0.f) count =", "count ="),
    "merge: parts without weight not counted": Mutation(
        "merge.cuh", "if (own != 0.f) count = static_cast<float>(split + 1);", "if (own != 0.f) count += 1.f;"
    ),
    "merge: minus infinity less minus infinity": Mutation(
        "attend_softmax.cuh", "score - (best == -INFINITY ? 0.f : best)", "score - best"
    ),
    "merge: parts not weighted": Mutation("merge.cuh", "fmaf(factors[split], loaded.at[i]", "fmaf(1.f, loaded.at[i]"),
    "merge: a part left out": Mutation("merge.cuh", "split < shares.count;", "split + 1 < shares.count;"),
    "merge: parts of another row": Mutation(
        "parts.cuh", "(cut.tiles * cut.tile_rows) + row", "(cut.tiles * cut.tile_rows) + row / 2"
    ),
    "tail: cache rows past the end": Mutation(
        "attend_stage.cuh", "first + Lane::row() + i < end)", "first + Lane::row() + i <= end)"
    ),
    "tail: rows past position + T": Mutation(
        "attend_stage.cuh", "const int seen = start + token + 1;", "const int seen = start + token + 2;"
    ),
    "tail: query rows past the last one": Mutation("attend.cuh", "if (row >= place.rows) return;", ""),
    "tail: columns past the head's": Mutation(
        "attend.cuh", "if (column >= columns_) return;", "if (columns_ == 0) return;"
    ),
    "tail: total of a row past the last one": Mutation("attend.cuh", "|| columns_ == 0) return;", ") return;"),
    "tail: padding not zero": Mutation("attend.cuh", "tiles.clear_padding(args.shape.head_dim);", ""),
    "tail: a piece past the call's": Mutation(
        "append_kv.cuh", "if (piece >= append_pieces(shape)) return;", "if (piece > append_pieces(shape)) return;"
    ),
    "float16: powers of scores as they are": Mutation("attend_softmax.cuh", "scale, -anchor)", "scale, 0.f * anchor)"),
    "float16: sums not shrunk": Mutation("attend_softmax.cuh", "sums[n].at[2 * half] *= shrink;", ""),
    "group: heads by turns": Mutation(
        "views.cuh", "head = group * heads + row % heads", "head = row % heads * shape.key_value_heads + group"
    ),
    "group: caches of the next": Mutation(
        "attend_stage.cuh",
        "keys(Input<T>(args.key_cache).from(cache_offset(args.shape, place.b, place.group",
        "keys(Input<T>(args.key_cache).from(cache_offset(args.shape, place.b, gridDim.y - 1 - place.group",
    ),
    "group: new rows of another": Mutation(
        "append_kv.cuh", "group = piece % of_token / of_head", "group = piece % shape.key_value_heads"
    ),
    "scale: forgotten": Mutation("attend.cuh", "args.scale * kLog2OfE", "kLog2OfE"),
    "scale: of the natural exponent": Mutation("attend.cuh", "args.scale * kLog2OfE", "args.scale"),
    "sequence: position of the first": Mutation(
        "views.cuh", "Input<int64_t>(args.position)[b]", "Input<int64_t>(args.position)[0 * b]"
    ),
    "sequence: values for keys": Mutation("append_kv.cuh", "args.value : args.key)", "args.key : args.value)"),
    "warp: a lane left out of the greatest": Mutation(
        "attend_softmax.cuh", "mask /= 2) best = fmaxf", "mask /= 4) best = fmaxf"
    ),
    "warp: a lane left out of a weight": Mutation("attend_softmax.cuh", "mask /= 2) weight +=", "mask /= 4) weight +="),
    "warp: keys of the first for all": Mutation("attend_stage.cuh", "% kKeyWarps * kWarpKeys; }", "% kKeyWarps * 0; }"),
}
#: Nothing but the sanitizer can see it.
TOO_SMALL = Mutation(
    "attend_stage.cuh", "kElements * static_cast<int>(sizeof(T));\n", "kElements * static_cast<int>(sizeof(T)) - 256;\n"
)
#: Only where a position lies outside, which is no case of the matrix.
OUTSIDE = {
    "rows past the end": Mutation("append_kv.cuh", "row >= 0 && row < shape.context", "row >= 0"),
    "rows before the begin": Mutation("append_kv.cuh", "row >= 0 && row < shape.context", "row < shape.context"),
    "position taken as it is": Mutation(
        "views.cuh",
        "return position > args.shape.context ? args.shape.context : static_cast<int>(position);",
        "return static_cast<int>(position);",
    ),
    "more cache rows seen than there are": Mutation(
        "attend_stage.cuh", "seen < shape.context ? seen : shape.context", "seen < shape.context ? seen : seen"
    ),
}
# Quick rows first; together they reach every line of the kernels.
SUITE = (
    "decode base",
    "prefill base",
    "decode D=80",
    "T=65",
    "decode multiprocessors=64",
    "prefill D=136",
    "prefill large scores",
    "decode splits of scores of minus infinity",
    "prefill no spare rows",
    "T=3 after 64",
    "calls that follow each other",
)


def build_mutant(mutation: Mutation, build: AttentionBuild, objects: dict[str, Path], folder: Path) -> Path:
    plugins = folder / "plugins"
    shutil.copytree(PLUGINS, plugins, ignore=shutil.ignore_patterns("__pycache__", "build*"))
    path = plugins / "cached_attention" / mutation.file
    patched, count = re.subn(pattern(mutation.old), lambda _: mutation.new, path.read_text())
    assert count == 1, f"{mutation.file} holds {count} of {mutation.old!r}"
    path.write_text(patched)
    # A mutant runs a few cases: to optimise it takes g++ longer than that gains.
    fresh = replace(build, plugins=plugins, strict=False, optimize=False).compile((KERNELS,), folder)
    return build.link({**objects, **fresh}.values(), folder / "mutant")


def why_caught(mutant: Path, folder: Path) -> str:
    """Why a row fails. Several seeds: a missing barrier shows only when the order of threads brings it out."""
    rows = matrix()
    for case in (replace(rows[row], seed=seed) for seed in range(2) for row in SUITE):
        try:
            found = errors(case, *run_case([str(mutant)], case, folder))
        except CaseError as error:
            return str(error)
        beyond = [f"{name} {error:g}" for name, error in found.items() if not error <= tolerances(case)[name]]
        if beyond:
            return ", ".join(beyond)
    return ""


def test_every_mutation_finds_its_line() -> None:
    """Of those too that are slow to try."""
    for name, mutation in (MUTATIONS | OUTSIDE).items():
        text = (PLUGINS / "cached_attention" / mutation.file).read_text()
        assert len(re.findall(pattern(mutation.old), text)) == 1, name


@pytest.mark.parametrize("name", every_sixth(MUTATIONS))
def test_mutation_is_caught(name: str, quick_attention_objects: dict[str, Path], tmp_path: Path) -> None:
    assert why_caught(build_mutant(MUTATIONS[name], QUICK, quick_attention_objects, tmp_path), tmp_path)


def test_sanitizer_catches_shared_memory_too_small(attention_objects: dict[str, Path], tmp_path: Path) -> None:
    mutant = build_mutant(TOO_SMALL, AttentionBuild(), attention_objects, tmp_path)
    assert "AddressSanitizer" in why_caught(mutant, tmp_path)


#: Positions before the caches, inside and past them.
OUTSIDE_CASE = Case(calls=(17,), start=(0, 0, 0), heads_per_group=1, groups=1, spare=0)
OUTSIDE_DATA = replace(make_data(OUTSIDE_CASE), position=[np.array([-3, 5, 2**31 - 5], np.int64)])


@pytest.mark.parametrize("name", OUTSIDE)
def test_sanitizer_catches_rows_outside_the_caches(
    name: str, attention_objects: dict[str, Path], tmp_path: Path
) -> None:
    mutant = build_mutant(OUTSIDE[name], AttentionBuild(), attention_objects, tmp_path)
    with pytest.raises(CaseError, match=r"AddressSanitizer|signed integer overflow"):
        run_case([str(mutant)], OUTSIDE_CASE, tmp_path, OUTSIDE_DATA)


#: Built as mutants are, with nothing broken: where it fails, no mutant is caught by its fault.
UNBROKEN = replace(TOO_SMALL, new=TOO_SMALL.old)


def test_unbroken_kernels_pass_under_the_sanitizer(attention_objects: dict[str, Path], tmp_path: Path) -> None:
    program = [str(build_mutant(UNBROKEN, AttentionBuild(), attention_objects, tmp_path))]
    run_case(program, OUTSIDE_CASE, tmp_path, OUTSIDE_DATA)
    run_case(program, matrix()["decode base"], tmp_path)


def test_unbroken_kernels_pass_the_suite(quick_attention_objects: dict[str, Path], tmp_path: Path) -> None:
    assert why_caught(build_mutant(UNBROKEN, QUICK, quick_attention_objects, tmp_path), tmp_path) == ""
