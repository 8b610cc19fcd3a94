"""Quantised weights are recognised by any of their signs, and nothing correct is blamed for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_export.checkpoint.announced import Announced
from elastic_export.checkpoint.dequantised import find_quantised
from elastic_export.checkpoint.inventory import check_inventory
from elastic_export.checkpoint.quantised import describe, named_so, quantisation_file
from elastic_export.layers.architecture import Architecture
from elastic_runtime.errors import InputError

IN = "backbone.layers.0.mixer.in_proj"


@dataclass(frozen=True)
class Kind:
    """What is known of a tensor: all that the inventory asks for."""

    dtype: str
    shape: tuple[int, ...]


def of(parent: Architecture, **others: Kind | None) -> dict[str, Kind]:
    """The parent's tensors in bf16, and others beside or (None) not there; `__` in a name stands for a dot."""
    found: dict[str, Kind] = {name: Kind("bf16", shape) for name, shape in parent.tensor_shapes("backbone").items()}
    for name, kind in others.items():
        full = f"{IN}.{name.replace('__', '.')}" if not name.startswith("in_proj_") else f"{IN}_{name[8:]}"
        found.pop(full, None)
        if kind is not None:
            found[full] = kind
    return found


SCALE = Kind("fp32", ())
#: Of in_proj [N, K].
N, K = 170, 24
FP8, PACKED = Kind("fp8_e4m3", (N, K)), Kind("u8", (N, K // 2))
#: Format -> its tensors, and what the refusal calls it.
SHAPES: dict[str, tuple[dict[str, Kind | None], str]] = {
    "FP8 by blocks": ({"weight": FP8, "weight_scale_inv": Kind("fp32", (2, 1))}, "FP8 in blocks"),
    "FP8 by blocks, ModelOpt": ({"weight": FP8, "weight_scale": Kind("fp32", (2, 1))}, "FP8 in blocks"),
    "FP8 by rows": ({"weight": FP8, "weight_scale": Kind("fp32", (N,))}, "FP8 with a scale for each row"),
    "FP8 by rows, compressed-tensors": ({"weight": FP8, "weight_scale": Kind("bf16", (N, 1))}, "a scale for each row"),
    "FP8 with pre_quant_scale": (
        {"weight": FP8, "weight_scale": SCALE, "pre_quant_scale": Kind("bf16", (K,))},
        "AWQ or SmoothQuant",
    ),
    "FP8 in E5M2": ({"weight": Kind("fp8_e5m2", (N, K))}, "fp8_e5m2"),
    "MXFP8": ({"weight": FP8, "weight_scale": Kind("u8", (N, 1))}, "MXFP8"),
    "MXFP4": ({"weight": PACKED, "weight_scale": Kind("u8", (N, 1))}, "MXFP4"),
    "W4A16_AWQ": ({"weight": Kind("u8", (N // 2, K)), "weight_scale": Kind("bf16", (N, 1))}, "W4A16_AWQ"),
    "GPTQ": (
        {
            "weight": None,
            "qweight": Kind("i32", (1, 1)),
            "qzeros": Kind("i32", (1, 1)),
            "scales": SCALE,
            "g_idx": SCALE,
        },
        "GPTQ or AWQ",
    ),
    "compressed-tensors": (
        {"weight": None, "weight_packed": Kind("i32", (N, 3)), "weight_scale": SCALE},
        "compressed-tensors' pack-quantized",
    ),
    "compressed-tensors, NVFP4": (
        {
            "weight": None,
            "weight_packed": PACKED,
            "weight_scale": Kind("fp8_e4m3", (N, 2)),
            "weight_global_scale": Kind("fp32", (1,)),
        },
        "compressed-tensors' nvfp4-pack-quantized",
    ),
    "SmoothQuant": ({"weight": Kind("i8", (N, K)), "weight_scale": Kind("fp32", (N,))}, "it is in i8"),
    "bitsandbytes, 8 bits": ({"weight": Kind("i8", (N, K)), "SCB": SCALE}, "bitsandbytes in 8 bits"),
    "bitsandbytes, 4 bits": (
        {"weight": Kind("u8", (N * K // 2, 1)), "weight__quant_state__bitsandbytes__nf4": Kind("u8", (1,))},
        "bitsandbytes in 4 bits",
    ),
    "MLX": ({"weight": Kind("u32", (N, 3)), "scales": SCALE, "biases": SCALE}, "MLX"),
}


@pytest.mark.parametrize(("tensors", "called"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("described", ["", "hf_quant_config.json says FP8"])
def test_any_sign_will_do(parent: Architecture, tensors: dict[str, Kind | None], called: str, described: str) -> None:
    found = of(parent, **tensors)
    with pytest.raises(InputError) as caught:
        check_inventory("ck", parent, "backbone", found, ["*_scale"], described)
    error = str(caught.value)
    assert error.startswith(f"ck, tensor '{IN}")
    assert "or as ModelOpt stores FP8 (per tensor) and NVFP4, found quantised ones: " in error
    assert called in error
    assert described in error
    assert error.endswith("Export the checkpoint that it was quantised from, in bf16, fp16 or fp32.")


@pytest.mark.parametrize("tensors", [tensors for tensors, _ in SHAPES.values()], ids=SHAPES)
def test_none_of_them_is_taken_for_one_that_is_read(parent: Architecture, tensors: dict[str, Kind | None]) -> None:
    """The headers go through untouched, so that the refusal is the one above."""
    shapes = parent.tensor_shapes("backbone")
    found: Any = of(parent, **tensors)
    left = find_quantised("ck", shapes, found, (Announced("ck", "FP8", (), {}),), "bf16", lambda _: np.ones(()))
    assert (dict(left.tensors), left.read_past) == (found, ())


def test_most_matrices_quantised_do_not_make_the_others_odd(parent: Architecture) -> None:
    found = {
        name: Kind("fp8_e5m2" if name.endswith("proj.weight") else "bf16", shape)
        for name, shape in parent.tensor_shapes("backbone").items()
    }
    with pytest.raises(InputError, match=f"tensor '{IN}.weight'.*quantised ones: it is in fp8_e5m2"):
        check_inventory("ck", parent, "backbone", found)


def test_scales_beside_whole_weights_are_unknown_tensors(parent: Architecture) -> None:
    """Of a cache, say: the weights are as they should be."""
    name = "backbone.layers.2.mixer.k_scale"
    found = of(parent) | {name: SCALE}
    with pytest.raises(InputError, match=r"found unknown .*k_scale\. If the unknown ones may be left out"):
        check_inventory("ck", parent, "backbone", found)
    assert check_inventory("ck", parent, "backbone", found, ["*.k_scale"], "there is recipe.yaml").dtype == "bf16"


def test_the_odd_matrix_is_blamed_and_not_the_first(parent: Architecture) -> None:
    shapes = parent.tensor_shapes("backbone")
    for odd, dtype in (("lm_head.weight", "fp32"), ("backbone.embeddings.weight", "fp16"), (f"{IN}.weight", "fp64")):
        found = {name: Kind(dtype if name == odd else "bf16", shape) for name, shape in shapes.items()}
        with pytest.raises(InputError) as caught:
            check_inventory("ck", parent, "backbone", found)
        expected = f"ck, tensor '{odd}': expected dtype bf16, as most matrices are, found {dtype}. Save it as bf16."
        assert str(caught.value) == expected


def test_an_adapter_is_no_model(parent: Architecture) -> None:
    found = {f"base_model.model.{IN}.lora_A.weight": Kind("bf16", (4, 4))}
    with pytest.raises(InputError, match=r"expected a whole model, found a LoRA adapter\. Merge it"):
        check_inventory("ck", parent, "backbone", found)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("hf_quant_config.json", {"quantization": {"quant_algo": "NVFP4"}}, "hf_quant_config.json says NVFP4"),
        ("quantize_config.json", {"bits": 4, "group_size": 128}, "quantize_config.json says 4"),
        ("quant_config.json", {"zero_point": True}, "there is quant_config.json"),
        ("hf_quant_config.json", "no JSON", "there is hf_quant_config.json"),
        ("recipe.yaml", "default_stage: {}", "there is recipe.yaml"),
        ("readme.json", {}, ""),
    ],
)
def test_files_that_say_it(tmp_path: Path, file: str, content: object, said: str) -> None:
    (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))
    assert quantisation_file(tmp_path) == said


def test_a_description_is_called_by_its_method_and_format() -> None:
    assert describe({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}) == (
        "compressed-tensors, nvfp4-pack-quantized"
    )
    assert describe({"quant_method": "awq", "bits": 4}) == "awq"
    assert describe({"format": "float-quantized"}) == describe([]) == ""


def test_no_tensor_of_the_family_is_called_so(parent: Architecture) -> None:
    assert named_so(parent.tensor_shapes("backbone")) == ""
