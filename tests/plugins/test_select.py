"""Which kernel runs for which shape, and its memory: through the C interface, on a machine with or without a GPU."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from call_arguments import arguments
from hypothesis import given, settings
from hypothesis import strategies as st
from mamba2_mixer.library import KERNELS, MixerError, MixerLibrary, Shape
from mamba2_mixer.testing import resources
from mamba2_mixer.testing.runner import PLUGINS

from elastic_export.ops.mamba2_mixer.creator import workspace_bytes

SHAPE = {"batch": 1, "tokens": 1, "heads": 128, "head_dim": 80, "groups": 8, "state_size": 128, "conv_width": 4}
H200, RTX5080 = 132, 84
REGISTERS = 65536  # of a multiprocessor, on every architecture
GRANULARITY = 8  # registers of a thread are given in multiples of it


@pytest.fixture(scope="module")
def library(host_library: Path) -> MixerLibrary:
    return MixerLibrary(host_library)


def shape(**changes: int) -> Shape:
    return Shape(**{**SHAPE, **changes})


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("select") / "select_probe"
    sources = [str(Path(__file__).parent / "select_probe.cpp"), str(PLUGINS / "mamba2_mixer" / "select.cpp")]
    subprocess.run(["g++", "-std=c++17", "-Wall", "-Werror", f"-I{PLUGINS}", *sources, "-o", program], check=True)
    return program


def chosen(probe: Path, changes: dict[str, int], multiprocessors: int) -> tuple[str, int]:
    """The five choices of select.h as digits, and a decode block's passes."""
    line = " ".join(map(str, [*{**SHAPE, **changes}.values(), multiprocessors, 2, 9]))
    said = subprocess.run([str(probe)], input=line, capture_output=True, text=True, check=True).stdout.split()
    return said[0], int(said[1])


@pytest.mark.parametrize(
    ("batch", "multiprocessors", "passes"),
    # 12B: 5 tiles of 16 rows a head. One sequence gives 640 blocks, too few to make them larger; 64 sequences give 8192
    # of whole heads, more than 16 a multiprocessor.
    [(1, H200, 1), (1, RTX5080, 1), (8, H200, 2), (8, RTX5080, 3), (64, H200, 5), (64, RTX5080, 5)],
)
def test_decode_blocks(probe: Path, batch: int, multiprocessors: int, passes: int) -> None:
    assert chosen(probe, {"batch": batch}, multiprocessors)[1] == passes


@pytest.mark.parametrize(
    ("changes", "choices"),  # decodes, wide state, vectors in scan, convolution and norm
    [
        ({}, "10111"),
        ({"tokens": 2}, "00111"),
        ({"heads": 8, "head_dim": 30}, "00000"),
        ({"heads": 24, "head_dim": 20}, "10111"),
        ({"heads": 9, "groups": 3}, "10100"),
        ({"conv_width": 3}, "00101"),
        ({"conv_width": 5}, "00101"),
        ({"state_size": 30}, "00001"),
        ({"state_size": 256}, "11111"),
    ],
)
def test_variants(probe: Path, changes: dict[str, int], choices: str) -> None:
    assert chosen(probe, changes, H200)[0] == choices


CHUNKS = {"tokens": 256}


@pytest.mark.parametrize(
    ("changes", "activation", "capability", "kernel"),
    [
        ({}, 2, 9, "decode_step"),
        (CHUNKS, 2, 8, "chunk_prefill_gated"),
        (CHUNKS, 1, 12, "chunk_prefill"),
        (CHUNKS, 2, 9, "chunk_prefill_gated_resident"),  # where it was timed, and only there
        (CHUNKS, 1, 9, "chunk_prefill_resident"),
        (CHUNKS, 2, 10, "chunk_prefill_gated"),
        (CHUNKS, 0, 9, "scan_prefill"),  # float32's tolerance is not that of two-byte operands
        (CHUNKS, 2, 7, "scan_prefill"),
        ({"tokens": 47}, 2, 9, "scan_prefill"),
        ({"tokens": 48}, 2, 8, "chunk_prefill_gated"),
        (CHUNKS | {"state_size": 132}, 2, 9, "scan_prefill"),
        (CHUNKS | {"head_dim": 132}, 2, 9, "scan_prefill"),
        (CHUNKS | {"head_dim": 128}, 2, 8, "chunk_prefill_gated"),
        (CHUNKS | {"head_dim": 78}, 2, 9, "scan_prefill"),
        (CHUNKS | {"head_dim": 4}, 2, 9, "scan_prefill"),
        (CHUNKS | {"state_size": 4}, 2, 9, "scan_prefill"),
        (CHUNKS | {"conv_width": 3}, 2, 9, "scan_prefill"),
        (CHUNKS | {"heads": 9, "groups": 3}, 2, 9, "scan_prefill"),
    ],
)
def test_which_kernel_runs(probe: Path, changes: dict[str, int], activation: int, capability: int, kernel: str) -> None:
    line = " ".join(map(str, [*{**SHAPE, **changes}.values(), H200, activation, capability]))
    said = subprocess.run([str(probe)], input=line, capture_output=True, text=True, check=True).stdout.split()
    assert int(said[2]) == KERNELS[kernel]


@pytest.mark.parametrize(
    ("head_dim", "width"),
    [(8, 48), (48, 48), (56, 64), (64, 64), (72, 80), (80, 80), (84, 48), (96, 48), (100, 64), (128, 64)],
)
def test_channels_of_a_block_leave_the_fewest_unused(probe: Path, head_dim: int, width: int) -> None:
    assert widths(probe, [head_dim]) == [width]


def test_a_heads_last_block_has_place_for_its_units(probe: Path) -> None:
    """operand_rows.cuh: of 4 channels 8 operands take the whole place, and their unit would be the next head's."""
    sizes = range(8, 132, 4)
    for head_dim, width in zip(sizes, widths(probe, sizes), strict=True):
        last = head_dim % width or width
        assert -(-last // 8) * 8 // 2 + 1 <= last, (head_dim, width)


def test_what_a_block_loads_past_its_head_is_of_the_same_token(probe: Path) -> None:
    """chunk_resident.cuh loads z of all channels that a block could have: behind z lie x, B, C and dt, of four heads
    and one group at least."""
    sizes, heads, state = range(8, 132, 4), 4, 8
    for head_dim, width in zip(sizes, widths(probe, sizes), strict=True):
        past = -(-head_dim // width) * width - head_dim
        assert past <= heads * head_dim + 2 * state + heads, (head_dim, width)


def widths(probe: Path, head_dims: Iterable[int]) -> list[int]:
    """Channels of a block of chunk_prefill, by head size."""
    lines = (" ".join(map(str, [*{**SHAPE, "head_dim": size}.values(), H200, 2, 9])) for size in head_dims)
    said = subprocess.run([str(probe)], input="\n".join(lines), capture_output=True, text=True, check=True).stdout
    return [int(line.split()[3]) for line in said.splitlines()]


def test_memory(library: MixerLibrary) -> None:
    decode, scan = library.requirements(shape(batch=4)), library.requirements(shape(batch=4, tokens=256))
    assert (decode.workspace_bytes, decode.counters) == (4 * 4 * (128 + 12288), 32)
    assert (scan.workspace_bytes, scan.counters) == (4 * 4 * 256 * (128 + 12288), 0)


@settings(max_examples=200, deadline=None)
@given(st.tuples(*(st.integers(1, n) for n in (8, 300, 9, 256, 6, 256))))
def test_python_declaration_counts_the_same_memory(host_library: Path, sizes: tuple[int, ...]) -> None:
    batch, tokens, per_group, head_dim, groups, state = sizes
    heads = per_group * groups
    needed = MixerLibrary(host_library).requirements(Shape(batch, tokens, heads, head_dim, groups, state, 4))
    symbols = {"B": batch, "T": tokens, "H": heads, "dc": heads * head_dim + 2 * groups * state}
    assert needed.workspace_bytes == workspace_bytes(symbols)


def test_one_sequence_is_one_wave_on_an_rtx_5080() -> None:
    """12B: 128 heads of 5 tiles of 16 rows, a block of 128 threads each."""
    table = resources.from_json(resources.TABLE.read_text())
    registers = -(-table["decode_step<bfloat16, 1>"][120].registers // GRANULARITY) * GRANULARITY
    resident = REGISTERS // (registers * 128)
    assert RTX5080 * resident >= 128 * 5


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
        ({"groups": 65536, "heads": 65536, "head_dim": 1}, "n_groups: expected 1 to 65535, found 65536"),
        # The norm has a block for each.
        (
            {"groups": 2**12, "tokens": 2**19, "heads": 2**12, "head_dim": 1},
            "groups of a row's tokens: expected 1 to 2147483647, found 2147483648",
        ),
        # 2**63 bytes and more: no int64 holds the offsets.
        ({"batch": 65535, "tokens": 1048560, "heads": 2**20}, "tokens of all rows: expected 1 to "),
    ],
)
def test_shapes_refused(library: MixerLibrary, changes: dict[str, int], text: str) -> None:
    with pytest.raises(MixerError, match=re.escape(f"Mamba2Mixer: {text}")):
        library.requirements(shape(**changes))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"tokens": 2}, "2, 4, 128 and 1280"),
        ({"conv_width": 3}, "1, 3, 128 and 1280"),
        ({"state_size": 126}, "1, 4, 126 and 1280"),
        ({"heads": 8, "head_dim": 30}, "1, 4, 128 and 30"),
    ],
)
def test_what_decode_step_does_not_run_is_refused(library: MixerLibrary, changes: dict[str, int], found: str) -> None:
    expected = "1 token, a convolution of width 4, and a state size and channels of a group that are multiples of 4"
    text = f"Mamba2Mixer: kernel decode_step: expected {expected}, found {found}"
    with pytest.raises(MixerError, match=re.escape(text)):
        library.enqueue(arguments(shape(**changes)), "decode_step")
    assert library.requirements(shape(**changes)).counters == 0


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"conv_width": 3}, "8, 3, 128, 80 and 128"),
        ({"heads": 9, "groups": 9}, "8, 4, 9, 80 and 128"),
        ({"head_dim": 132}, "8, 4, 128, 132 and 128"),
        ({"state_size": 30}, "8, 4, 128, 80 and 30"),
    ],
)
@pytest.mark.parametrize("kernel", [name for name in KERNELS if name.startswith("chunk_prefill")])
def test_what_chunk_prefill_does_not_run_is_refused(
    library: MixerLibrary, kernel: str, changes: dict[str, int], found: str
) -> None:
    expected = (
        "compute capability 8 or later, a convolution of width 4, heads in a multiple of 4, head and state sizes of 8 "
        "to 128 in multiples of 4"
    )
    text = f"Mamba2Mixer: kernel {kernel}: expected {expected}, found {found}"
    activation = 2 if "gated" in kernel else 0  # an ElasticDtype: bfloat16, float32
    with pytest.raises(MixerError, match=re.escape(text)):
        library.enqueue(arguments(shape(tokens=64, **changes), activation=activation), kernel)


@pytest.mark.parametrize("kernel", ["chunk_prefill_gated", "chunk_prefill_gated_resident"])
def test_the_gate_before_the_norm_wants_bfloat16(library: MixerLibrary, kernel: str) -> None:
    text = f"Mamba2Mixer: activation type of kernel {kernel}: expected 2 (bfloat16), found 0"
    with pytest.raises(MixerError, match=re.escape(text)):
        library.enqueue(arguments(shape(tokens=64)), kernel)


def test_unknown_kernel_is_refused(library: MixerLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KERNELS, "fast", 7)
    expected = "5 (chunk_prefill_resident) or 6 (chunk_prefill_gated_resident), found 7"
    with pytest.raises(MixerError, match=re.escape(expected)):
        library.enqueue(arguments(shape()), "fast")


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
    with pytest.raises(MixerError, match=re.escape(f"Mamba2Mixer: {text}")):
        library.enqueue(arguments(shape(), **changes))


def test_abi_is_legible(library: MixerLibrary) -> None:
    abi = json.loads(library.abi())
    assert abi["ops"] == {"Mamba2Mixer": "1", "CachedAttention": "1"}
    assert (abi["tensorrt"], abi["cuda"]) == ("none", "none")
