"""What codes are worth: against tables of PyTorch and of the published formula, element by element."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elastic_export.checkpoint.formats.all_formats import FORMAT_OF, FORMATS
from elastic_export.checkpoint.formats.format import Format
from elastic_export.checkpoint.formats.fp8 import FP8
from elastic_export.checkpoint.formats.nvfp4 import NVFP4
from elastic_export.verify.second_reading import SECOND
from quantised_checkpoint import E2M1

#: Codes 0 to 255 as PyTorch reads them.
E4M3 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).double().tolist()
NUMBERS = [code for code in range(256) if code & 0x7F != 0x7F]
#: Of block scales: positive numbers.
POSITIVE = range(1, 0x7F)
SCALES = st.floats(2.0**-120, 2.0**100, width=32)


def rounded(*factors: float) -> float:
    """The exact product of numbers, rounded to float32 once; a zero keeps its sign."""
    exact = Fraction(1)
    for factor in factors:
        exact *= Fraction(factor)
    sign = -1.0 if sum(np.signbit(factor) for factor in factors) % 2 else 1.0
    # float64 holds each of these products: 4 + 4 + 24 bits.
    assert Fraction(float(exact)) == exact
    return float(np.float32(float(exact))) if exact else 0.0 * sign


def bits(array: Any) -> Any:
    return np.ascontiguousarray(array, np.float32).view(np.uint32)


@given(SCALES, st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=40))
def test_fp8(scale: float, codes: list[int]) -> None:
    found = FP8.decode([np.array([codes], np.uint8)], [np.float32(scale)])
    np.testing.assert_array_equal(bits(found), bits([[rounded(E4M3[code], scale) for code in codes]]))


@given(SCALES, st.data())
def test_nvfp4(scale: float, data: st.DataObject) -> None:
    rows, blocks = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    codes = [[data.draw(st.integers(0, 15)) for _ in range(16 * blocks)] for _ in range(rows)]
    scales = [[data.draw(st.sampled_from(POSITIVE)) for _ in range(blocks)] for _ in range(rows)]
    packed = np.array([[row[i] + 16 * row[i + 1] for i in range(0, len(row), 2)] for row in codes], np.uint8)

    found = NVFP4.decode([packed, np.array(scales, np.uint8)], [np.float32(scale)])

    worth = [
        [rounded(E2M1[code], E4M3[scales[r][i // 16]], scale) for i, code in enumerate(row)]
        for r, row in enumerate(codes)
    ]
    np.testing.assert_array_equal(bits(found), bits(worth))


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: fmt.name)
def test_the_oracle_reads_every_code_the_same(fmt: Format) -> None:
    """Two implementations, to the bit; scales that are not powers of two."""
    rng = np.random.default_rng(2)
    columns = 256 * 16
    pieces = [rng.integers(0, 256, p.shape((64, columns)), np.uint8) for p in fmt.by_rows]
    if fmt is FP8:
        pieces[0] = np.array(NUMBERS, np.uint8)[pieces[0] % len(NUMBERS)]
    else:
        pieces[1] = (pieces[1] % 126 + 1).astype(np.uint8)
    whole = [np.float32(0.00123)]
    assert fmt.fault(pieces) is None
    second = SECOND[fmt.name](*map(torch.from_numpy, pieces), *map(torch.tensor, whole))
    np.testing.assert_array_equal(bits(fmt.decode(pieces, whole)), bits(second.numpy()))


def test_every_format_has_a_second_reading_and_a_dtype_of_its_own() -> None:
    assert set(SECOND) == {fmt.name for fmt in FORMATS}
    assert list(FORMAT_OF.values()) == list(FORMATS)


def test_blocks_are_those_of_the_formats() -> None:
    assert (FP8.block, NVFP4.block) == (1, 16)
    assert [piece.shape((6, 32)) for piece in NVFP4.pieces] == [(6, 16), (6, 2), ()]


@pytest.mark.parametrize("code", [0x7F, 0xFF])
def test_a_code_that_is_no_number(code: int) -> None:
    codes = np.zeros((3, 4), np.uint8)
    codes[1, 2] = codes[2, 0] = code
    fault = FP8.fault([codes])
    assert fault is not None
    assert (fault.piece.name, fault.row, fault.found) == ("weight", 1, "a NaN (code 0x7f or 0xff)")


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (0x7F, "a NaN (code 0x7f or 0xff)"),
        (0xFF, "a NaN (code 0x7f or 0xff)"),
        (0x00, "zero"),
        (0x80, "zero"),
        (0x81, "a negative one"),
        (0xFE, "a negative one"),
    ],
)
def test_a_block_scale_that_is_none(code: int, found: str) -> None:
    pairs, scales = np.full((3, 16), 0xFF, np.uint8), np.full((3, 2), 0x7E, np.uint8)
    assert NVFP4.fault([pairs, scales]) is None
    scales[2, 1] = code
    fault = NVFP4.fault([pairs, scales])
    assert fault is not None
    assert (fault.piece.name, fault.row, fault.found) == ("weight_scale", 2, found)


def test_no_rows_are_no_fault() -> None:
    nothing = np.zeros((0, 4), np.uint8)
    assert FP8.fault([nothing]) is NVFP4.fault([nothing, nothing]) is None
