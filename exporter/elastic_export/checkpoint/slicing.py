"""What a budget keeps of every tensor, as exact index runs, straight from the definitions.

This is the independent statement of a sub-model's weights: it knows the tensors by name and nothing of graphs. The
narrow pass, which knows graphs and no names, must come to the same runs; `derive` and the sliced checkpoint are made
with it. Symbols: H heads, P head dim, g groups, N state, primes for what is kept (docs of Architecture).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from elastic_export.checkpoint.architecture import Architecture
from elastic_export.checkpoint.budget import Budget
from elastic_runtime.slicing import copy_runs, merge_runs

#: (start, count) along one axis: ascending, not empty, not touching each other.
Runs = tuple[tuple[int, int], ...]
#: One `Runs` per axis of a tensor.
TensorRuns = tuple[Runs, ...]


def runs_length(runs: Runs) -> int:
    """How many indices `runs` holds."""
    return sum(count for _, count in runs)


def runs_shape(runs: TensorRuns) -> tuple[int, ...]:
    """Shape of the sliced tensor."""
    return tuple(runs_length(axis) for axis in runs)


def tensor_runs(parent: Architecture, budget: Budget, prefix: str = "backbone") -> dict[str, TensorRuns]:
    """Per parent tensor that the sub-model keeps: its runs on every axis, in the order of `Architecture.tensor_shapes`.

    Tensors of skipped layers are absent.
    """
    hidden, vocabulary = ((0, budget.hidden_size),), ((0, parent.vocab_size),)
    runs: dict[str, TensorRuns] = {f"{prefix}.embeddings.weight": (vocabulary, hidden)}
    for index, kind, ordinal in parent.layers():
        if index in budget.skip_layers:
            continue
        layer = f"{prefix}.layers.{index}"
        runs[f"{layer}.norm.weight"] = (hidden,)
        mixer = {"M": _mamba_runs, "-": _mlp_runs, "*": _attention_runs}[kind](parent, budget, ordinal)
        runs |= {f"{layer}.mixer.{name}": axes for name, axes in mixer.items()}
    runs[f"{prefix}.norm_f.weight"] = (hidden,)
    runs["lm_head.weight"] = (vocabulary, hidden)
    return runs


def state_runs(parent: Architecture, budget: Budget) -> dict[str, tuple[str, TensorRuns]]:
    """Per state of the sub-model (`conv_state.i`, …): the parent's state and the runs of its axes after the batch.

    The cache's token axis, S, has no fixed length: caches list only their (KV heads, head dim) axes, which are whole.
    """
    states: dict[str, tuple[str, TensorRuns]] = {}
    kept = {"M": 0, "-": 0, "*": 0}
    for index, kind, ordinal in parent.layers():
        if index in budget.skip_layers:
            continue
        mine, kept[kind] = kept[kind], kept[kind] + 1
        if kind == "M":
            taps, state = ((0, parent.conv_kernel - 1),), ((0, parent.ssm_state),)
            conv = merge_runs(_conv_rows(parent, budget, ordinal))
            states[f"conv_state.{mine}"] = (f"conv_state.{ordinal}", (taps, conv))
            heads, channels = merge_runs(mamba_head_runs(parent, budget, ordinal)), ((0, budget.mamba_head_dim),)
            states[f"ssm_state.{mine}"] = (f"ssm_state.{ordinal}", (heads, channels, state))
        elif kind == "*":
            whole: TensorRuns = (((0, parent.kv_heads),), ((0, parent.attention_head_dim),))
            for cache in ("key_cache", "value_cache"):
                states[f"{cache}.{mine}"] = (f"{cache}.{ordinal}", whole)
    return states


def mamba_head_runs(parent: Architecture, budget: Budget, ordinal: int) -> list[tuple[int, int]]:
    """The kept heads of the ordinal-th Mamba layer: the first H'/g of the H/g heads of every group."""
    groups = parent.ssm_groups
    per_group, kept = parent.mamba_heads[ordinal] // groups, budget.mamba_heads[ordinal] // groups
    return [(group * per_group, kept) for group in range(groups)]


def sub_model_name(name: str, parent: Architecture, budget: Budget, prefix: str = "backbone") -> str | None:
    """A parent tensor's name in the sub-model, its layer renumbered; None where the layer is skipped."""
    lead = f"{prefix}.layers."
    if not name.startswith(lead):
        return name
    index, rest = name.removeprefix(lead).split(".", 1)
    layer = int(index)
    return None if layer in budget.skip_layers else f"{lead}{budget.kept_layers(parent).index(layer)}.{rest}"


def slice_array(array: np.ndarray[Any, Any], runs: TensorRuns) -> np.ndarray[Any, Any]:
    """The kept indices of every axis, row-major and contiguous; the array itself where that is all of it."""
    if runs_shape(runs) == array.shape and array.flags.c_contiguous:
        return array
    return copy_runs(array, runs)


def sliced_blocks(
    array: np.ndarray[Any, Any], runs: TensorRuns, max_bytes: int = 64 << 20
) -> Iterator[np.ndarray[Any, Any]]:
    """`slice_array` in pieces along the first axis, each of at most `max_bytes` (or one row): for streaming."""
    rows, rest = runs[0], runs[1:]
    step = max(1, max_bytes // max(1, array[:1].nbytes))
    for start, count in rows:
        for first in range(start, start + count, step):
            last = min(first + step, start + count)
            yield slice_array(array[first:last], (((0, last - first),), *rest))


def _mamba_runs(parent: Architecture, budget: Budget, ordinal: int) -> dict[str, TensorRuns]:
    hidden, heads = ((0, budget.hidden_size),), merge_runs(mamba_head_runs(parent, budget, ordinal))
    inner = merge_runs(_inner_channels(parent, budget, ordinal, 0))
    conv = merge_runs(_conv_rows(parent, budget, ordinal))
    return {
        "in_proj.weight": (merge_runs(_projected_rows(parent, budget, ordinal)), hidden),
        "conv1d.weight": (conv, ((0, 1),), ((0, parent.conv_kernel),)),
        "conv1d.bias": (conv,),
        "A_log": (heads,),
        "D": (heads,),
        "dt_bias": (heads,),
        "norm.weight": (inner,),
        "out_proj.weight": (hidden, inner),
    }


def _inner_channels(parent: Architecture, budget: Budget, ordinal: int, offset: int) -> list[tuple[int, int]]:
    """Kept channels of z, x or y: the first P' of the P channels of every kept head."""
    width, kept = parent.mamba_head_dim, budget.mamba_head_dim
    heads = (h for start, count in mamba_head_runs(parent, budget, ordinal) for h in range(start, start + count))
    return [(offset + head * width, kept) for head in heads]


def _conv_rows(parent: Architecture, budget: Budget, ordinal: int, offset: int = 0) -> list[tuple[int, int]]:
    """Kept rows of x | B | C: B and C are never cut."""
    b_and_c = (offset + parent.inner_size(ordinal), 2 * parent.ssm_groups * parent.ssm_state)
    return [*_inner_channels(parent, budget, ordinal, offset), b_and_c]


def _projected_rows(parent: Architecture, budget: Budget, ordinal: int) -> list[tuple[int, int]]:
    """Kept rows of z | x | B | C | dt."""
    di = parent.inner_size(ordinal)
    dt = di + parent.conv_channels(ordinal)
    heads = [(dt + start, count) for start, count in mamba_head_runs(parent, budget, ordinal)]
    return [*_inner_channels(parent, budget, ordinal, 0), *_conv_rows(parent, budget, ordinal, di), *heads]


def _mlp_runs(parent: Architecture, budget: Budget, ordinal: int) -> dict[str, TensorRuns]:
    del parent  # the three share one signature
    hidden, ffn = ((0, budget.hidden_size),), ((0, budget.ffn_sizes[ordinal]),)
    return {"up_proj.weight": (ffn, hidden), "down_proj.weight": (hidden, ffn)}


def _attention_runs(parent: Architecture, budget: Budget, ordinal: int) -> dict[str, TensorRuns]:
    """Kept queries: the first q'/kv of the q/kv heads of every KV head; keys and values are never cut."""
    del ordinal
    hidden, size = ((0, budget.hidden_size),), parent.attention_head_dim
    per_kv, kept = parent.attention_heads // parent.kv_heads, budget.attention_heads // parent.kv_heads
    queries = merge_runs([(kv * per_kv * size, kept * size) for kv in range(parent.kv_heads)])
    keys: Runs = ((0, parent.kv_heads * size),)
    return {
        "q_proj.weight": (queries, hidden),
        "k_proj.weight": (keys, hidden),
        "v_proj.weight": (keys, hidden),
        "o_proj.weight": (hidden, queries),
    }
