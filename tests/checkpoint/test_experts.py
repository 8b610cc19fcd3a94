"""Mixtures of experts are refused by the name of their family, by whatever shows them."""

from __future__ import annotations

import re

import pytest

from elastic_export.checkpoint.experts import of_experts
from elastic_export.checkpoint.inventory import check_inventory
from elastic_export.layers.architecture import Architecture
from elastic_runtime.errors import InputError


@pytest.mark.parametrize(
    "name",
    ["experts.0.up_proj.weight", "shared_experts.up_proj.weight", "gate.weight", "gate.e_score_correction_bias"],
)
def test_tensors_of_experts_below_a_config_of_dense_layers(parent: Architecture, name: str) -> None:
    """To rename them back, which was the advice, would not have helped. (Patterns: see test_config.)"""
    shapes = parent.tensor_shapes("backbone")
    mlp = next(tensor for tensor in shapes if tensor.endswith("up_proj.weight"))
    odd = mlp.replace("up_proj.weight", name)
    found = {odd if tensor == mlp else tensor: _Tensor(shape) for tensor, shape in shapes.items()}
    told = (
        rf"^ck, tensor '{re.escape(odd)}': expected the layers .*, found a mixture of experts, as the Nemotron 3 models"
    )
    with pytest.raises(InputError, match=told):
        check_inventory("ck", parent, "backbone", found)


def test_no_tensor_of_a_dense_model_is_called_so(parent: Architecture) -> None:
    assert of_experts(parent.tensor_shapes("backbone")) == ""


class _Tensor:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.dtype, self.shape = "bf16", shape
