"""Vectors and convolutions that a narrow checkpoint keeps in float32, any mix of them: verified, and not by luck."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from .conftest import BUDGET, PARENT, Compiled, verdict

MIXES = {
    "all": (".A_log", ".D", ".dt_bias", "norm.weight", "norm_f.weight", "conv1d.weight", "conv1d.bias"),
    "norms": ("norm.weight", "norm_f.weight"),
    "the gated norm": (".mixer.norm.weight",),
    "the convolution's taps": ("conv1d.weight",),
    "the convolution's bias": ("conv1d.bias",),
    "one layer": (".layers.0.mixer.norm.weight", ".layers.0.mixer.conv1d.bias", ".layers.0.mixer.A_log"),
}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_any_mix_of_float32_parameters_is_verified(
    tmp_path: Path, trace_once: Callable[..., ir.Model], mix: tuple[str, ...], precision: str
) -> None:
    model = Compiled(tmp_path, PARENT, BUDGET, precision, trace_once, wide=mix)
    kept = [name for name, tensor in model.checkpoint.tensors.items() if tensor.dtype == "fp32"]
    values = np.concatenate([model.checkpoint.read(name).ravel() for name in kept])
    assert (values != values.astype(np.float16)).any()  # or nothing would be rounded
    assert verdict(model.verify(model.emitted)) == ""


def test_a_gated_norm_that_is_not_rounded_on_one_side_shows(
    tmp_path: Path, trace_once: Callable[..., ir.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = Compiled(tmp_path, PARENT, BUDGET, "bf16", trace_once, wide=(".mixer.norm.weight",))
    monkeypatch.setattr("elastic_export.verify.verify._TAKEN_NARROW", ())
    assert "float32: " in "; ".join(
        f"{check.name}: {d.tensor}" for check in model.verify(model.emitted).checks for d in check.failures
    )
