"""The ops of domain `elastic` as PyTorch sees them: values against plain formulas, shape rules against values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from elastic_export.ops.cached_attention.torch_op import cached_attention
from elastic_export.ops.contract import load_contract
from elastic_export.ops.last_token.torch_op import last_token
from elastic_export.ops.masked_rms_norm.torch_op import masked_rms_norm


def attention_by_hand(q: Any, keys: Any, values: Any) -> Any:
    """One head over all the keys it may see: softmax(q·k/√hd)·v."""
    scores = np.exp(keys @ q / math.sqrt(len(q)))
    return scores @ values / scores.sum()


@pytest.mark.parametrize(("heads", "kv"), [(4, 2), (3, 3), (4, 1)])
def test_cached_attention_is_attention_over_all_earlier_tokens(heads: int, kv: int) -> None:
    rng, (batch, tokens, capacity, hd) = np.random.default_rng(heads), (2, 3, 9, 4)
    query, key, value = (rng.normal(size=(batch, tokens, n * hd)) for n in (heads, kv, kv))
    caches = [rng.normal(size=(batch, kv, capacity, hd)) for _ in range(2)]
    position = [0, 5]
    for row, first in enumerate(position):
        for cache in caches:
            cache[row, :, first:] = np.nan
    inputs = [torch.from_numpy(x) for x in (query, key, value, *caches)]
    y, keys, values = (t.numpy() for t in cached_attention(*inputs, torch.tensor(position), heads, kv, hd, hd**-0.5))
    for row, first in enumerate(position):
        for cache, new in ((keys, key), (values, value)):
            expected = new[row].reshape(tokens, kv, hd).swapaxes(0, 1)
            np.testing.assert_array_equal(cache[row, :, first : first + tokens], expected)
            assert np.isnan(cache[row, :, first + tokens :]).all()
        for t in range(tokens):
            for h in range(heads):
                group, end = h // (heads // kv), first + t + 1
                expected = attention_by_hand(
                    query[row, t, h * hd : (h + 1) * hd], keys[row, group, :end], values[row, group, :end]
                )
                np.testing.assert_allclose(y[row, t, h * hd : (h + 1) * hd], expected, rtol=1e-12)


def test_masked_rms_norm_counts_kept_channels_only() -> None:
    x, weight, mask = (
        torch.randn(2, 3, 6, dtype=torch.float64),
        torch.randn(6).double(),
        torch.tensor([1, 0, 1, 1, 0, 0.0]),
    )
    kept = mask.bool()
    y = masked_rms_norm(x, weight, mask.double(), 1e-3)
    expected = x[..., kept] / (x[..., kept].pow(2).mean(-1, keepdim=True) + 1e-3).sqrt() * weight[kept]
    torch.testing.assert_close(y[..., kept], expected, rtol=1e-12, atol=0)
    assert not bool(y[..., ~kept].any())


def test_last_token_is_row_length_less_one() -> None:
    x = torch.arange(24.0).reshape(3, 4, 2)
    assert torch.equal(last_token(x, torch.tensor([4, 1, 0])), torch.stack([x[0, 3], x[1, 0], x[2, 0]]))


def examples() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    B, T, G, P, N, H, K = 2, 3, 2, 3, 4, 4, 3
    di, dc = H * P, H * P + 2 * G * N
    mixer = (
        *(torch.randn(*s) for s in [(B, T, di + dc + H), (dc, 1, K), (dc,), (H,), (H,), (H,), (di,)]),
        torch.tensor([3, 0]), torch.randn(B, K - 1, dc), torch.randn(B, H, P, N), torch.ones(di),
        G, P, N, 1e-5, 0.0, math.inf,
    )  # fmt: skip
    attention = (
        torch.randn(B, T, 8),
        torch.randn(B, T, 4),
        torch.randn(B, T, 4),
        torch.randn(B, 1, 5, 4),
        torch.randn(B, 1, 5, 4),
    )
    return {
        "masked_mamba2_mixer": (torch.ops.elastic.masked_mamba2_mixer.default, mixer),
        "masked_rms_norm": (
            torch.ops.elastic.masked_rms_norm.default,
            (torch.randn(2, 5), torch.ones(5), torch.ones(5), 1e-5),
        ),
        "cached_attention": (
            torch.ops.elastic.cached_attention.default,
            (*attention, torch.tensor([0, 1]), 2, 1, 4, 0.5),
        ),
        "last_token": (torch.ops.elastic.last_token.default, (torch.randn(2, 3, 4), torch.tensor([1, 3]))),
    }


@pytest.mark.parametrize("op", examples())
def test_shape_rules_say_what_the_ops_do(op: str) -> None:
    """PyTorch's own check of custom ops: schema, fake tensors against real ones."""
    function, arguments = examples()[op]
    torch.library.opcheck(function, arguments, test_utils=("test_schema", "test_faketensor"))


def test_operands_stand_in_the_order_of_the_contract() -> None:
    contract = load_contract("mamba2_mixer")
    names = [argument.name for argument in torch.ops.elastic.masked_mamba2_mixer.default._schema.arguments]
    assert names == [*(operand.name for operand in contract.inputs), "channel_mask", *contract.attributes]
    assert (contract.domain, contract.name, contract.version) == ("elastic", "Mamba2Mixer", 1)
    assert contract.defaults == {"time_step_min": 0.0, "time_step_max": math.inf}
    attention = load_contract("cached_attention")
    names = [argument.name for argument in torch.ops.elastic.cached_attention.default._schema.arguments]
    assert names == [*(operand.name for operand in attention.inputs), *attention.attributes]
