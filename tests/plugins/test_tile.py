"""tile.cuh on the host shim: fragments as the PTX ISA lays them out, products, and each kind of fault caught.

The tables here are written from the PTX ISA's formulas ("Matrix Fragments for mma.m16n8k16", "ldmatrix") and share no
code with the shim: only the same mistake in both would let a wrong layout pass.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from mamba2_mixer.testing.runner import PLUGINS, SHIM, HostBuild
from numpy.typing import NDArray

SOURCE = Path(__file__).parent / "tile_probe.cu"
WIDTH = 16


def a_element(lane: int, i: int) -> tuple[int, int]:
    """Row and column of a_i, i = 0..7: row groupID for i in 0,1,4,5, else groupID + 8; columns from 8 on for i >= 4."""
    group, thread = lane >> 2, lane % 4
    row = group if i in {0, 1, 4, 5} else group + 8
    return row, thread * 2 + (i & 1) + (8 if i >= 4 else 0)


def b_element(lane: int, i: int) -> tuple[int, int]:
    """Row and column of b_i, i = 0..3: column groupID; rows from 8 on for i >= 2."""
    group, thread = lane >> 2, lane % 4
    return thread * 2 + (i & 1) + (8 if i >= 2 else 0), group


def c_element(lane: int, i: int) -> tuple[int, int]:
    """Row and column of c_i, i = 0..3: row groupID for i < 2, else groupID + 8."""
    group, thread = lane >> 2, lane % 4
    return (group if i < 2 else group + 8), thread * 2 + (i & 1)


@pytest.fixture(scope="module")
def probe(case_objects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, build = tmp_path_factory.mktemp("tile_probe"), HostBuild()
    subprocess.run(["g++", *build.flags(), "-c", "-x", "c++", str(SOURCE), "-o", str(folder / "probe.o")], check=True)
    return build.link([*(case_objects[source] for source in SHIM), folder / "probe.o"], folder / "tile_probe")


def run(probe: Path, what: str, data: bytes = b"", rows: int = WIDTH) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(probe), what, str(rows)], input=data, capture_output=True, check=False)


def test_lanes_load_the_elements_that_ptx_gives_them(probe: Path) -> None:
    """Elements of the tile are their own positions, row * 16 + column."""
    halves = np.frombuffer(run(probe, "fragments").stdout, np.uint16).reshape(32, 2, 24)
    for lane in range(32):
        for strides, found in zip(((WIDTH, 1), (1, WIDTH)), halves[lane], strict=True):  # the tile, its transpose
            a = [np.dot(a_element(lane, i), strides) for i in range(8)]
            left = [np.dot(b_element(lane, i), strides) for i in range(4)]
            right = [position + 8 * strides[1] for position in left]
            assert found.tolist() == [*a, *left, *right, *left, *right], lane


def test_products_are_of_the_elements_that_ptx_names(probe: Path) -> None:
    """Small integers, exact in every order of summation."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-8, 9, shape).astype(np.float16) for shape in ((16, 16), (16, 8)))
    registers = np.array(
        [
            [*(a[a_element(lane, i)] for i in range(8)), *(b[b_element(lane, i)] for i in range(4))]
            for lane in range(32)
        ],
        np.float16,
    )
    found = np.frombuffer(run(probe, "products", registers.tobytes()).stdout, np.float32).reshape(32, 4)
    wanted = a.astype(np.float64) @ b.astype(np.float64)
    assert found.tolist() == [[wanted[c_element(lane, i)] for i in range(4)] for lane in range(32)]


def operands(dtype: type, rows: int) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(rows)
    return tuple(rng.integers(-2, 3, shape).astype(dtype) for shape in ((rows, 16), (16, 16)))  # type: ignore[return-value]


def product(probe: Path, what: str, dtype: type, rows: int) -> tuple[NDArray, NDArray]:
    """(A B) B as the block and as numpy find it: integers that both types hold."""
    a, b = operands(dtype, rows)
    done = run(probe, what, a.tobytes() + b.tobytes(), rows)
    assert done.returncode == 0, done.stderr.decode()
    wanted = a.astype(np.float64) @ b.astype(np.float64) @ b.astype(np.float64)
    return np.frombuffer(done.stdout, np.float32).reshape(rows, 16), wanted


@pytest.mark.parametrize(("what", "dtype"), [("float16", np.float16), ("bfloat16", ml_dtypes.bfloat16)])
@pytest.mark.parametrize("rows", [1, 9, 16])
def test_a_product_and_the_next_one_of_it(probe: Path, what: str, dtype: type, rows: int) -> None:
    np.testing.assert_array_equal(*product(probe, what, dtype, rows))


@pytest.mark.parametrize("what", ["no wait", "no barrier", "not transposed"])
def test_a_missing_wait_a_missing_barrier_and_a_wrong_layout_show(probe: Path, what: str) -> None:
    found, wanted = product(probe, what, np.float16, 16)
    assert not np.array_equal(found, wanted)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("unmasked", b"heap-buffer-overflow"),
        ("past the tile", b"heap-buffer-overflow"),
        ("misaligned", b"ldmatrix: a row that is not aligned to 16 bytes"),
        ("divergent", b"threads wait for each other"),
        ("two instructions", b"lanes of one warp wait for each other in different instructions"),
        ("half a warp", b"an instruction of 32 lanes in a warp that has fewer"),
    ],
)
def test_rows_outside_and_warps_that_are_not_together_end_the_process(probe: Path, what: str, says: bytes) -> None:
    a, b = operands(np.float16, 9)
    done = run(probe, what, a.tobytes() + b.tobytes(), 9)
    assert done.returncode != 0
    assert says in done.stderr


@pytest.mark.parametrize(("columns", "banks"), [(8, 4), (16, 8), (24, 2), (40, 4), (64, 8), (80, 8), (128, 8)])
def test_eight_rows_of_a_tile_lie_in_different_banks_or_there_is_no_tile(
    columns: int, banks: int, tmp_path: Path
) -> None:
    """ldmatrix reads 16 bytes of each of eight rows: together all 128 bytes of the banks."""
    assert len({row * (columns + 8) * 2 // 16 % 8 for row in range(8)}) == banks
    source = tmp_path / "tile.cpp"
    source.write_text(f'#include "tile.cuh"\ntemplate class elastic::SharedTile<elastic::float16, 16, {columns}>;\n')
    done = subprocess.run(["g++", *HostBuild().flags(), "-fsyntax-only", str(source)], capture_output=True, check=False)
    assert (done.returncode == 0) == (banks == 8), done.stderr.decode()


@pytest.mark.skipif(
    shutil.which("nvcc") is None, reason="nvcc was not found: the device's own instructions not compiled"
)
@pytest.mark.parametrize("architecture", [75, 80, 120])
def test_the_same_source_compiles_for_a_card(architecture: int, tmp_path: Path) -> None:
    command = ["nvcc", "-std=c++17", "-cubin", f"-arch=sm_{architecture}", "-Xptxas", "-v,--warn-on-spills"]
    command += ["-Werror=all-warnings", f"-I{PLUGINS / 'common'}", str(SOURCE), "-o", str(tmp_path / "probe.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "spill" not in done.stderr.replace("0 bytes spill", "")
