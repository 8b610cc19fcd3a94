"""How an attention call is cut, its memory and refusals: through the C interface, with or without a GPU."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from cached_attention import library as mirror
from cached_attention.library import KERNELS, Args, AttentionError, AttentionLibrary, Shape
from hypothesis import given, settings
from hypothesis import strategies as st
from mamba2_mixer.testing.runner import PLUGINS

from elastic_export.ops.contract import load_contract
from elastic_export.ops.kernel_limits import read_constants, read_formula
from elastic_export.ops.plugin_creator import formula

ATTENTION = PLUGINS / "cached_attention"
LIMITS = read_constants(ATTENTION / "limits.h")
SHAPE = {"batch": 1, "tokens": 1, "heads": 40, "key_value_heads": 8, "head_dim": 128, "context": 131072}
H100, RTX5080 = 132, 84
DECODE, PREFILL = KERNELS["decode"], KERNELS["prefill"]


@pytest.fixture(scope="module")
def library(attention_library: Path) -> AttentionLibrary:
    return AttentionLibrary(attention_library)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("attention_select") / "probe"
    sources = [str(Path(__file__).parent / "attention_select_probe.cpp"), str(ATTENTION / "select.cpp")]
    subprocess.run(["g++", "-std=c++17", "-Wall", "-Werror", f"-I{PLUGINS}", *sources, "-o", program], check=True)
    return program


def shape(**changes: int) -> Shape:
    return Shape(**{**SHAPE, **changes})


def cut(probe: Path, changes: dict[str, int], multiprocessors: int, kernel: int = 0) -> tuple[int, ...]:
    """Kernel, rows of a tile, tiles, splits."""
    line = " ".join(map(str, [*{**SHAPE, **changes}.values(), kernel, multiprocessors]))
    done = subprocess.run([str(probe)], input=line, capture_output=True, text=True, check=True)
    return tuple(map(int, done.stdout.split()))


@pytest.mark.parametrize(
    ("changes", "multiprocessors", "wanted"),
    [
        ({}, H100, (DECODE, 16, 1, 33)),  # 264 blocks: two a multiprocessor
        ({}, RTX5080, (DECODE, 16, 1, 21)),
        ({"batch": 64}, H100, (DECODE, 16, 1, 1)),
        ({"tokens": 3}, H100, (DECODE, 16, 1, 33)),
        ({"tokens": 4}, H100, (PREFILL, 64, 1, 33)),
        ({"tokens": 64}, H100, (PREFILL, 64, 5, 6)),
        ({"tokens": 256}, H100, (PREFILL, 64, 20, 3)),  # 160 blocks of 264 places: two waves of a third each
        ({"tokens": 256}, RTX5080, (PREFILL, 64, 20, 1)),  # of 168
        ({"tokens": 1024}, H100, (PREFILL, 64, 80, 1)),
        ({"context": 200}, H100, (DECODE, 16, 1, 4)),  # tiles of keys
        ({"context": 63}, H100, (DECODE, 16, 1, 1)),
        ({"heads": 1, "key_value_heads": 1}, H100, (DECODE, 16, 1, 128)),  # no more parts than merge can hold
    ],
)
def test_cuts(probe: Path, changes: dict[str, int], multiprocessors: int, wanted: tuple[int, ...]) -> None:
    assert cut(probe, changes, multiprocessors) == wanted


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.tuples(*(st.integers(1, most) for most in (70, 300, 9, 20))),
    multiprocessors=st.integers(1, 1000),
    kernel=st.sampled_from([DECODE, PREFILL]),
)
def test_parts_always_have_room(probe: Path, sizes: tuple[int, ...], multiprocessors: int, kernel: int) -> None:
    batch, tokens, groups, per_group = sizes
    changes = {"batch": batch, "tokens": tokens, "heads": groups * per_group, "key_value_heads": groups}
    _, rows, tiles, splits = cut(probe, changes, multiprocessors, kernel)
    assert tiles * rows - rows < tokens * per_group <= tiles * rows
    assert 1 <= splits <= LIMITS["kMaxSplits"]
    assert splits == 1 or splits * tiles * rows * groups * batch <= LIMITS["kMaxPartRows"]


@pytest.mark.parametrize(
    ("dtype", "head_dim", "major", "expected"),
    [
        (1, 256, 8, ""),
        (2, 256, 12, ""),
        (1, 128, 7, ""),
        (1, 136, 7, "8.0 or later for bfloat16 or heads above 128"),
        (2, 64, 7, "8.0 or later for bfloat16 or heads above 128"),
        (1, 64, 6, "7.5 or later"),
    ],
)
def test_cards_that_cannot_run_a_call_are_refused(
    probe: Path, dtype: int, head_dim: int, major: int, expected: str
) -> None:
    said = subprocess.run(
        [str(probe), "capability"], input=f"{dtype} {head_dim} {major}", capture_output=True, text=True, check=True
    ).stdout.strip()
    text = f"CachedAttention: compute capability: expected {expected}, found {major}.x"
    assert said == (text if expected else "")


def test_memory_is_that_of_the_formula(library: AttentionLibrary) -> None:
    text = read_formula(ATTENTION / "limits.h", "workspace_floats")
    for head_dim in (8, 128, 256):
        wanted = 4 * formula(text, {"R": LIMITS["kMaxPartRows"], "D": head_dim})
        assert library.requirements(shape(head_dim=head_dim)).workspace_bytes == wanted


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"batch": 0}, "batch: expected 1 to 65535, found 0"),
        ({"tokens": 0}, "tokens: expected 1 to 1048576, found 0"),
        ({"heads": 0}, "num_heads: expected 1 to 2147483647, found 0"),
        ({"key_value_heads": 0}, "num_key_value_heads: expected 1 to 65535, found 0"),
        ({"heads": 41}, "num_heads: expected a multiple of 8, num_key_value_heads, found 41"),
        ({"head_dim": 0}, "head_dim: expected 8 to 256, found 0"),
        ({"head_dim": 257}, "head_dim: expected 8 to 256, found 257"),
        ({"head_dim": 20}, "head_dim: expected a multiple of 8, found 20"),
        ({"context": 0}, "rows of the caches: expected 1 to 1073741824, found 0"),
        ({"context": 2**30 + 1}, "rows of the caches: expected 1 to 1073741824, found 1073741825"),
        ({"heads": 2**30}, "elements of one token: expected 1 to 2147483647, found 137438953472"),
        ({"tokens": 2**20}, "elements of one sequence: expected 1 to 2147483647, found 5368709120"),
        # 2**63 bytes and more: no int64 holds the offsets.
        (
            {"batch": 65535, "heads": 65535, "key_value_heads": 65535, "head_dim": 8, "context": 2**30},
            "heads of a cache: expected 1 to 536870911, found 4294836225",
        ),
    ],
)
def test_shapes_refused(library: AttentionLibrary, changes: dict[str, int], text: str) -> None:
    with pytest.raises(AttentionError, match=re.escape(f"CachedAttention: {text}")):
        library.requirements(shape(**changes))


def arguments(**changes: object) -> Args:
    """Every pointer another multiple of 4096: of a call that is refused before anything reads them."""
    names = [name for name, *_ in Args._fields_]
    pointers = {name: 4096 * (i + 1) for i, name in enumerate(names[names.index("query") :])}
    return Args(shape=shape(), **{"dtype": 1, "scale": 0.1, **pointers, **changes})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"dtype": 0}, "type: expected 1 (float16) or 2 (bfloat16), found 0"),
        ({"scale": 0.0}, "scale: expected a finite number above 0, found 0.0"),
        ({"scale": -1.0}, "scale: expected a finite number above 0, found -1.0"),
        ({"scale": float("inf")}, "scale: expected a finite number above 0, found inf"),
        ({"scale": float("nan")}, "scale: expected a finite number above 0, found nan"),
        *(
            ({name: None}, f"{name}: expected a 16-byte aligned device pointer, found null")
            for name in ("query", "key", "value", "position", "key_cache", "value_cache", "y", "workspace")
        ),
        ({"value_cache": 4104}, "value_cache: expected a 16-byte aligned device pointer, found an unaligned one"),
    ],
)
def test_calls_refused(library: AttentionLibrary, changes: dict[str, object], text: str) -> None:
    with pytest.raises(AttentionError, match=re.escape(f"CachedAttention: {text}")):
        library.enqueue(arguments(**changes))


def test_kernels_that_are_not_there_are_refused(library: AttentionLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KERNELS, "other", 7)
    with pytest.raises(
        AttentionError, match=re.escape("kernel: expected 0 (auto), 1 (decode) or 2 (prefill), found 7")
    ):
        library.enqueue(arguments(), kernel="other")


@pytest.mark.parametrize(
    ("struct", "file", "of"),
    [
        ("ElasticAttentionShape", "params.h", mirror.Shape),
        ("ElasticAttentionArgs", "params.h", mirror.Args),
        ("ElasticAttentionRequirements", "elastic_attention.h", mirror.Requirements),
    ],
)
def test_ctypes_structs_follow_the_headers(struct: str, file: str, of: type) -> None:
    found = re.search(rf"typedef struct {struct} {{(.*?)}} {struct};", (ATTENTION / file).read_text(), re.S)
    assert found
    code = re.sub(r"/\*.*?\*/", "", found[1], flags=re.S)
    fields = re.findall(r"([\w ]+?[ *]+)(\w+);", code)
    assert [name for _, name in fields] == [name for name, _ in of._fields_]  # type: ignore[attr-defined]


def test_kernels_are_enumerated_alike() -> None:
    found = re.findall(r"ELASTIC_ATTENTION_(\w+) = (\d)", (ATTENTION / "elastic_attention.h").read_text())
    assert {name.lower(): int(code) for name, code in found} == KERNELS


def test_contract_is_read_and_the_glue_names_its_inputs() -> None:
    contract = load_contract("cached_attention")
    assert contract.limits["D"] == (LIMITS["kHeadDimStep"], LIMITS["kMaxHeadDim"])
    found = re.search(r"kNames\[\] = {(.*?)};", (ATTENTION / "tensorrt" / "tensors.h").read_text(), re.S)
    assert found
    assert re.findall(r'"(\w+)"', found[1]) == [operand.name for operand in contract.inputs]
