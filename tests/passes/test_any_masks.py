"""Masks that no budget makes: any channels, any heads of a group. Narrowing is exact, or an error names the node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elastic_export.graph.facts import tensor_slices
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.mamba2 import INNER, PROJECTED
from elastic_export.reference import Masks
from elastic_export.runs import runs_of
from elastic_runtime.errors import InternalError
from masked_parent import full_masks

Array = np.ndarray[Any, Any]


@st.composite
def subsets(draw: st.DrawFn, size: int, kept: int | None = None) -> Array:
    """A boolean vector with `kept` ones, or with at least one."""
    kept = draw(st.integers(1, size)) if kept is None else kept
    chosen = draw(st.permutations(range(size)))[:kept]
    return np.isin(np.arange(size), chosen)


@st.composite
def grouped(draw: st.DrawFn, size: int, groups: int) -> Array:
    """As many members of each group, another choice in each."""
    each = size // groups
    kept = draw(st.integers(1, each))
    return np.concatenate([draw(subsets(each, kept)) for _ in range(groups)])


def tensor(vector: Array) -> torch.Tensor:
    return torch.from_numpy(vector.astype(np.float32))


def mamba_masks(arch: Architecture, index: int, heads: Array, inside: Array) -> Masks:
    channels, shared = np.outer(heads, inside).ravel(), np.ones(2 * arch.ssm_groups * arch.ssm_state, bool)
    projected = np.concatenate([channels, channels, shared, heads])
    return {f"projected.{index}": tensor(projected), f"channels.{index}": tensor(channels)}


@st.composite
def mask_sets(draw: st.DrawFn, arch: Architecture) -> tuple[Masks, Architecture, dict[str, Array]]:
    """Masks, the sub-architecture they mean, and the rows each mixer keeps of its first weight."""
    hidden, inside = draw(subsets(arch.hidden_size)), draw(subsets(arch.mamba_head_dim))
    queries = draw(grouped(arch.attention_heads, arch.kv_heads))
    masks, kept, ffn, mamba = full_masks(arch) | {"hidden": tensor(hidden)}, {"hidden": hidden}, [], []
    count = int(queries.reshape(arch.kv_heads, -1)[0].sum())
    for index, kind, ordinal in arch.layers():
        masks[f"branch.{index}"] = tensor(hidden)
        if kind.letter == "M":
            heads = draw(grouped(arch.mamba_heads[ordinal], arch.ssm_groups))
            masks |= mamba_masks(arch, index, heads, inside)
            kept[f"{index}.mixer.in_proj"] = masks[f"projected.{index}"].numpy() > 0
            mamba.append(int(heads.sum()))
        elif kind.letter == "-":
            kept[f"{index}.mixer.up_proj"] = vector = draw(subsets(arch.ffn_sizes[ordinal]))
            masks[f"ffn.{index}"] = tensor(vector)
            ffn.append(int(vector.sum()))
        else:
            # Query heads differ by group; all attention layers of one sub-model have as many.
            chosen = np.concatenate([draw(subsets(len(queries) // arch.kv_heads, count)) for _ in range(arch.kv_heads)])
            kept[f"{index}.mixer.q_proj"] = rows = np.repeat(chosen, arch.attention_head_dim)
            masks[f"heads.{index}"] = tensor(rows)
    sub = replace(
        arch,
        hidden_size=int(hidden.sum()),
        ffn_sizes=tuple(ffn),
        mamba_heads=tuple(mamba),
        mamba_head_dim=int(inside.sum()),
        attention_heads=count * arch.kv_heads,
    )
    return masks, sub, kept


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_subset_narrows_exactly_to_the_union_of_its_runs(data: st.DataObject, small_parent: Any) -> None:
    masks, sub, kept = data.draw(mask_sets(small_parent.arch))
    model = small_parent.compile(masks, sub)
    runs = {part.tensor: part.runs for part in tensor_slices(model.weight_sources.values())}
    assert runs["lm_head.weight"][1] == runs_of(kept.pop("hidden"))
    for name, rows in kept.items():
        assert runs[f"backbone.layers.{name}.weight"][0] == runs_of(rows), name
    errors = small_parent.errors(model, masks)
    assert max(errors.values()) <= 1e-4, errors


def unequal_heads(arch: Architecture) -> Masks:
    heads = np.ones(arch.mamba_heads[0], bool)
    heads[-1] = False
    return mamba_masks(arch, 0, heads, np.ones(arch.mamba_head_dim, bool))


def ragged_positions(arch: Architecture) -> Masks:
    channels = np.ones(arch.size(INNER), bool)
    channels[1] = False
    shared, heads = np.ones(2 * arch.ssm_groups * arch.ssm_state, bool), np.ones(arch.mamba_heads[0], bool)
    projected = np.concatenate([channels, channels, shared, heads])
    return {"projected.0": tensor(projected), "channels.0": tensor(channels)}


def unequal_queries(arch: Architecture) -> Masks:
    heads = np.ones(arch.attention_heads, bool)
    heads[0] = False
    return {"heads.2": tensor(np.repeat(heads, arch.attention_head_dim))}


def half_a_query(arch: Architecture) -> Masks:
    rows = np.ones(arch.attention_heads * arch.attention_head_dim, bool)
    rows[3] = False
    return {"heads.2": tensor(rows)}


def masked_b(arch: Architecture) -> Masks:
    rows = np.ones(arch.size(PROJECTED), bool)
    rows[2 * arch.size(INNER)] = False
    return {"projected.0": tensor(rows)}


def narrower_branch(arch: Architecture) -> Masks:
    rows = np.ones(arch.hidden_size, bool)
    rows[5] = False
    return {"branch.1": tensor(rows)}


def nothing_left(arch: Architecture) -> Masks:
    return {"ffn.1": torch.zeros(arch.ffn_sizes[0])}


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (unequal_heads, r"node \S+ \(elastic::MaskedMamba2Mixer\): "
                        r"expected the same number of heads in every SSM group, found \[3, 2\]"),
        (ragged_positions, r"node \S+ \(elastic::MaskedMamba2Mixer\): "
                           r"expected a mask of ones after narrowing, found a masked channel left"),
        (unequal_queries, r"node \S+ \(elastic::CachedAttention\): "
                          r"expected the same number of query heads in every KV group, found \[2, 3\]"),
        (half_a_query, r"node Mul_\d+: expected no mask in a sub-model, found constant \(48,\)"),
        (masked_b, r"node Mul_\d+: expected no mask in a sub-model, found constant \(170,\)"),
        (narrower_branch, r"node Mul_\d+: expected no mask in a sub-model, found constant \(24,\)"),
    ],
)  # fmt: skip
def test_masks_that_no_plain_model_can_express_are_an_error_that_names_the_node(
    fault: Callable[[Architecture], Masks], text: str, small_parent: Any
) -> None:
    masks = full_masks(small_parent.arch) | fault(small_parent.arch)
    with pytest.raises(InternalError, match=text):
        small_parent.compile(masks, small_parent.arch)


def test_a_layer_without_a_live_channel_is_dead(small_parent: Any) -> None:
    """All FFN channels masked: the branch is known to be zero and goes, as if the layer were skipped."""
    masks = full_masks(small_parent.arch) | nothing_left(small_parent.arch)
    sub = replace(small_parent.arch, pattern="M*M-", ffn_sizes=(37,))
    model = small_parent.compile(masks, sub)
    assert max(small_parent.errors(model, masks).values()) <= 1e-4
