"""States by the interface of an exported model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from elastic_export.reference import empty_state, state_ports_of


@pytest.mark.parametrize("seed", range(4))
def test_empty_state_has_the_ports_of_the_interface(seed: int, model_of: Callable[[int], Any]) -> None:
    arch = model_of(seed).arch
    state, sizes = empty_state(arch, 3, 11, torch.float64), {"B": 3, "S": 11}
    ports = state_ports_of(arch, "bfloat16")
    assert list(state) == [port.name for port in ports]
    for port in ports:
        tensor = state[port.name]
        assert tuple(tensor.shape) == tuple(sizes.get(str(d), d) for d in port.shape)
        assert tensor.dtype == torch.float64
        assert not bool(tensor.any())
        assert port.dtype == ("float32" if port.kind == "ssm_state" else "bfloat16")


def test_state_bytes_are_those_of_the_architecture(model_of: Callable[[int], Any]) -> None:
    """The figures that a manifest gives, counted on the tensors themselves."""
    arch = model_of(0).arch
    state = empty_state(arch, 1, 7, torch.float32)
    recurrent = sum(t.numel() * 4 for name, t in state.items() if "cache" not in name)
    caches = sum(t.numel() * 2 for name, t in state.items() if "cache" in name)
    assert recurrent == arch.state_bytes(4)
    assert caches == 7 * arch.kv_bytes_per_token(2)
