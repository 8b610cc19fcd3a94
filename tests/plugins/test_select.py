"""Which kernel runs for which shape, and its memory: through the C interface, on a machine with or without a GPU."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mamba2_mixer.library import KERNELS, Args, MixerError, MixerLibrary, Plan, Shape

from elastic_export.ops.mamba2_mixer.creator import workspace_bytes

SHAPE = {"batch": 1, "tokens": 1, "heads": 128, "head_dim": 80, "groups": 8, "state_size": 128, "conv_width": 4}
H200, RTX5080 = 132, 84


@pytest.fixture(scope="module")
def library(host_library: Path) -> MixerLibrary:
    return MixerLibrary(host_library)


def shape(**changes: int) -> Shape:
    return Shape(**{**SHAPE, **changes})


def test_choice_by_tokens(library: MixerLibrary) -> None:
    assert KERNELS[library.plan(shape()).kernel] == "decode_step"
    assert KERNELS[library.plan(shape(tokens=2)).kernel] == "scan_prefill"
    assert KERNELS[library.plan(shape(), "scan_prefill").kernel] == "scan_prefill"


@pytest.mark.parametrize(
    ("batch", "multiprocessors", "passes"),
    # 12B: 5 tiles of 16 rows a head. One sequence gives 640 blocks, too few to make them larger; 64 sequences give 8192
    # of whole heads, more than 16 a multiprocessor.
    [(1, H200, 1), (1, RTX5080, 1), (8, H200, 2), (8, RTX5080, 3), (64, H200, 5), (64, RTX5080, 5)],
)
def test_decode_blocks(library: MixerLibrary, batch: int, multiprocessors: int, passes: int) -> None:
    assert library.plan(shape(batch=batch), "auto", multiprocessors).passes == passes


@pytest.mark.parametrize(
    ("changes", "vectors"),
    [
        ({}, (1, 1, 1, 0)),
        ({"head_dim": 30}, (1, 0, 0, 0)),
        ({"heads": 24, "groups": 8, "head_dim": 20}, (1, 1, 1, 0)),
        ({"heads": 9, "groups": 3}, (1, 0, 1, 0)),
        ({"conv_width": 5}, (1, 0, 1, 0)),
        ({"state_size": 30}, (0, 0, 0, 0)),
        ({"state_size": 256}, (1, 1, 1, 1)),
    ],
)
def test_variants(library: MixerLibrary, changes: dict[str, int], vectors: tuple[int, ...]) -> None:
    decode, scan = library.plan(shape(**changes)), library.plan(shape(tokens=7, **changes))
    assert (decode.vector_state, scan.vector_conv, scan.vector_scan, scan.wide_state) == vectors


def test_memory(library: MixerLibrary) -> None:
    decode, scan = library.plan(shape(batch=4)), library.plan(shape(batch=4, tokens=256))
    assert (decode.workspace_bytes, decode.counters) == (4 * 4 * 10240, 32)
    assert (scan.workspace_bytes, scan.counters) == (4 * 4 * 256 * (128 + 12288), 0)


@settings(max_examples=200, deadline=None)
@given(st.tuples(*(st.integers(1, n) for n in (8, 300, 9, 256, 6, 256))))
def test_python_declaration_counts_the_same_memory(host_library: Path, sizes: tuple[int, ...]) -> None:
    batch, tokens, per_group, head_dim, groups, state = sizes
    heads = per_group * groups
    plan = MixerLibrary(host_library).plan(Shape(batch, tokens, heads, head_dim, groups, state, 4))
    assert plan.workspace_bytes == workspace_bytes(B=batch, T=tokens, H=heads, P=head_dim, G=groups, N=state)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"batch": 0}, "batch: expected 1 to 65535, found 0"),
        ({"tokens": 0}, "tokens: expected 1 to 1048560, found 0"),
        ({"head_dim": 257}, "head_dim: expected 1 to 256, found 257"),
        ({"state_size": 257}, "state_size: expected 1 to 256, found 257"),
        ({"conv_width": 9}, "convolution width: expected 2 to 8, found 9"),
        ({"conv_width": 1}, "convolution width: expected 2 to 8, found 1"),
        ({"heads": 100}, "heads: expected a multiple of the 8 groups, found 100"),
        ({"heads": 2**30}, "elements of one token: expected 1 to 2147483647, found"),
    ],
)
def test_shapes_refused(library: MixerLibrary, changes: dict[str, int], text: str) -> None:
    with pytest.raises(MixerError, match=re.escape(f"Mamba2Mixer: {text}")):
        library.plan(shape(**changes))


def test_names_refused(library: MixerLibrary) -> None:
    with pytest.raises(MixerError, match="kernel: expected auto, decode_step or scan_prefill, found fast"):
        library.plan(shape(), "fast")
    with pytest.raises(MixerError, match="kernel decode_step: tokens: expected 1, found 2"):
        library.plan(shape(tokens=2), "decode_step")


def arguments(**changes: object) -> Args:
    pointers = {name: 4096 * (i + 1) for i, (name, *_) in enumerate(Args._fields_[6:])}
    return Args(shape=shape(), epsilon=1e-5, **{**pointers, **changes})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"activation": 3}, "activation type: expected 0, 1 or 2, found 3"),
        ({"head_param": 2}, "type of A_log, D, dt_bias: expected float32 or the activations' 0, found 2"),
        ({"projected": None}, "projected: expected a 16-byte aligned device pointer, found null"),
        ({"ssm_state": 4100}, "ssm_state: expected a 16-byte aligned device pointer, found an unaligned one"),
        ({"counters": None}, "counters: expected a device pointer, found null"),
        ({"conv_state_out": 4096 * 9}, "conv_state_out: expected another buffer than conv_state, found the same"),
    ],
)
def test_calls_refused(library: MixerLibrary, changes: dict[str, object], text: str) -> None:
    args = arguments(**changes)
    with pytest.raises(MixerError, match=re.escape(f"Mamba2Mixer: {text}")):
        library.enqueue(args, library.plan(args.shape))


def test_plan_of_another_shape_refused(library: MixerLibrary) -> None:
    with pytest.raises(MixerError, match="plan: expected one made for this shape, found another"):
        library.enqueue(arguments(), library.plan(shape(heads=8)))
    with pytest.raises(MixerError, match="kernel: expected auto"):
        library.enqueue(arguments(), Plan())


def test_abi_is_legible(library: MixerLibrary) -> None:
    abi = json.loads(library.abi())
    assert abi["ops"] == {"Mamba2Mixer": "1"}
    assert (abi["tensorrt"], abi["cuda"]) == ("none", "none")
