"""Quantised weights are recognised by any of their signs, and nothing correct is blamed for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from elastic_export.checkpoint.inventory import check_inventory
from elastic_export.checkpoint.quantised import named_so, quantisation_file
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
SHAPES = {
    "ModelOpt, FP8": {"weight": Kind("fp8_e4m3", (1, 1)), "weight_scale": SCALE, "input_scale": SCALE},
    "ModelOpt, NVFP4": {
        "weight": Kind("u8", (1, 1)),
        "weight_scale": Kind("fp8_e4m3", (1, 1)),
        "weight_scale_2": SCALE,
    },
    "block-wise FP8": {"weight": Kind("fp8_e4m3", (1, 1)), "weight_scale_inv": Kind("fp32", (1, 1))},
    "FP8 whose scales are ignored": {"weight": Kind("fp8_e5m2", (1, 1))},
    "GPTQ": {
        "weight": None,
        "qweight": Kind("i32", (1, 1)),
        "qzeros": Kind("i32", (1, 1)),
        "scales": SCALE,
        "g_idx": SCALE,
    },
    "compressed-tensors": {"weight": None, "weight_packed": Kind("i32", (1, 1)), "weight_scale": SCALE},
    "bitsandbytes, 8 bits": {"weight": Kind("i8", (1, 1)), "SCB": SCALE},
    "bitsandbytes, 4 bits": {"weight": Kind("u8", (1, 1)), "weight__quant_state__bitsandbytes__nf4": Kind("u8", (1,))},
    "MLX": {"weight": Kind("u32", (1, 1)), "scales": SCALE, "biases": SCALE},
}


@pytest.mark.parametrize("tensors", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("described", ["", "hf_quant_config.json says FP8"])
def test_any_sign_will_do(parent: Architecture, tensors: dict[str, Kind | None], described: str) -> None:
    with pytest.raises(InputError) as caught:
        check_inventory("ck", parent, "backbone", of(parent, **tensors), ["*_scale"], described)
    error = str(caught.value)
    assert error.startswith(f"ck, tensor '{IN}")
    assert "expected weights in bf16, fp16 or fp32, found quantised ones: " in error
    assert described in error
    assert error.endswith("Export the checkpoint that it was quantised from, in bf16, fp16 or fp32.")


def test_most_matrices_quantised_do_not_make_the_others_odd(parent: Architecture) -> None:
    found = {
        name: Kind("fp8_e4m3" if name.endswith("proj.weight") else "bf16", shape)
        for name, shape in parent.tensor_shapes("backbone").items()
    }
    with pytest.raises(InputError, match=f"tensor '{IN}.weight'.*quantised ones: it is in fp8_e4m3"):
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


def test_no_tensor_of_the_family_is_called_so(parent: Architecture) -> None:
    assert named_so(parent.tensor_shapes("backbone")) == ""
