"""What a conversion of weights refuses, and what it says it took."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from elastic_export.checkpoint.conversion import Conversion, Loss, convert
from elastic_runtime.errors import BuildError

# float16: 2^-14 is the smallest normal number, 2^-24 the smallest of all; what is at most half of that becomes zero.
VALUES = [0.0, -0.0, 1.0, -(2.0**-14), 2.0**-15, -(2.0**-24), 1e-30, -1e-30, 2.0**-25, 1.5 * 2.0**-24]
BF16 = np.array(VALUES, ml_dtypes.bfloat16)


def took(array: np.ndarray, dtype: str) -> Loss:
    return Loss.of(array, convert(array, dtype, "w"))


def test_values_that_become_zero_and_that_lose_digits_are_counted() -> None:
    assert took(BF16, "fp16") == Loss(values=10, zeros=3, shortened=1)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_a_wider_dtype_takes_nothing(dtype: np.dtype) -> None:
    array = np.array([0.0, 1.0, 1e-7], dtype)
    assert took(array, "fp32") == Loss(values=3)


def test_float32_below_all_of_bfloat16() -> None:
    array = np.array([1e-45, 1e-38, 1.0, -1e-45], np.float32)
    assert took(array, "bf16") == Loss(values=4, zeros=2, shortened=1)


def test_the_same_dtype_is_no_conversion() -> None:
    assert took(BF16, "bf16") == Loss(values=10)


def test_not_a_number_is_none_that_became_zero() -> None:
    assert took(np.array([np.nan, 0.0], ml_dtypes.bfloat16), "fp16") == Loss(values=2)


def test_too_large_values_are_refused() -> None:
    with pytest.raises(BuildError, match=r"tensor 'w': expected values that fp16 can hold, found 999424"):
        convert(np.array([1e6], ml_dtypes.bfloat16), "fp16", "w")


def test_the_report_names_the_worst_tensor_by_its_share_of_zeros() -> None:
    conversion = Conversion("bf16", "fp16")
    conversion.add("large", Loss(1000, 5, 30))
    conversion.add("small", Loss(50, 2, 0))
    conversion.add("small", Loss(50, 1, 1))
    assert conversion.report() == {
        "from": "bf16", "to": "fp16", "values": 1100, "became_zero": 8, "lost_digits": 31, "relative_error": 0.0,
        "worst": {"tensor": "small", "values": 100, "became_zero": 3, "lost_digits": 1},
    }  # fmt: skip
    assert conversion.warning() == (
        "8 of 1100 weights are too small for fp16 and became zero, in small 3 of 100; 31 more lost digits"
    )


def test_the_error_of_rounding_is_reported_over_all_tensors() -> None:
    conversion = Conversion("FP8 and bf16", "bf16")
    conversion.add("w", took(np.array([1 + 2.0**-8, 2.0], np.float32), "bf16"))  # a tie: it goes down to 1
    conversion.add("v", took(np.array([4.0], np.float32), "bf16"))
    expected = 2.0**-8 / np.sqrt((1 + 2.0**-8) ** 2 + 4 + 16)
    assert conversion.report()["relative_error"] == pytest.approx(expected, rel=5e-3) == 0.000852


def test_nothing_is_said_where_nothing_became_zero() -> None:
    conversion = Conversion("bf16", "fp16")
    conversion.add("w", Loss(1000, 0, 3))
    assert conversion.warning() == ""
    assert conversion.report()["worst"] == {"tensor": "w", "values": 1000, "became_zero": 0, "lost_digits": 3}
    lossless = Conversion("bf16", "fp32")
    lossless.add("w", Loss(1000))
    assert lossless.report() == {
        "from": "bf16", "to": "fp32", "values": 1000, "became_zero": 0, "lost_digits": 0, "relative_error": 0.0,
        "worst": None,
    }  # fmt: skip
