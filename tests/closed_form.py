"""A sub-model's states and interface by the closed form: what a bundle's manifest must say of any graph we emit."""

from __future__ import annotations

from collections.abc import Sequence

from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_runtime.format.interface import Dim, OpsMode, Precision, StatePort, logits_port, token_ports
from elastic_runtime.format.manifest import InputPort, OutputPort, StateEntry
from elastic_runtime.format.slicing import Runs, merge_runs

DTYPES: dict[Precision, str] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def state_ports(
    dtype: str,
    *,
    mamba: Sequence[tuple[int, int, int, int, int]],
    attention: Sequence[tuple[int, int]],
) -> tuple[StatePort, ...]:
    """The states of a model, conv and SSM state of each Mamba layer first, then the caches.

    Args:
        dtype: the model's dtype; SSM states are float32 always.
        mamba: per Mamba layer (conv width k, conv channels di+2gN, heads H, head dim P, state size N).
        attention: per attention layer (KV heads, head dim).
    """
    ports: list[StatePort] = []
    for i, (k, channels, heads, head_dim, state) in enumerate(mamba):
        ports.append(StatePort(f"conv_state.{i}", dtype, ("B", k - 1, channels), "conv_state", i))
        ports.append(StatePort(f"ssm_state.{i}", "float32", ("B", heads, head_dim, state), "ssm_state", i))
    for j, (kv_heads, head_dim) in enumerate(attention):
        shape: tuple[Dim, ...] = ("B", kv_heads, "S", head_dim)
        ports.append(StatePort(f"key_cache.{j}", dtype, shape, "key_cache", j))
        ports.append(StatePort(f"value_cache.{j}", dtype, shape, "value_cache", j))
    return tuple(ports)


def states(model: Architecture, precision: Precision) -> tuple[StatePort, ...]:
    """The state ports of a sub-model."""
    mamba = [
        (
            model.conv_kernel,
            heads * model.mamba_head_dim + 2 * model.ssm_groups * model.ssm_state,
            heads,
            model.mamba_head_dim,
            model.ssm_state,
        )
        for heads in model.mamba_heads
    ]
    attention = [(model.kv_heads, model.attention_head_dim)] * model.pattern.count("*")
    return state_ports(DTYPES[precision], mamba=mamba, attention=attention)


def state_entries(parent: Architecture, budget: Budget) -> tuple[StateEntry, ...]:
    """Every state of the sub-model with the parent's layer and, per axis, the parent's indices it keeps."""
    kept = [(i, kind, k) for i, kind, k in parent.layers() if i not in budget.skip_layers]
    mamba = [(i, k) for i, kind, k in kept if kind.letter == "M"]
    attention = [i for i, kind, _ in kept if kind.letter == "*"]
    entries: list[StateEntry] = []
    for ordinal, (layer, k) in enumerate(mamba):
        heads = kept_heads(parent.mamba_heads[k], budget.mamba_heads[k], parent.ssm_groups)
        conv = conv_runs(parent, k, heads, budget.mamba_head_dim)
        taps, state = _whole(parent.conv_kernel - 1), _whole(parent.ssm_state)
        entries.append(StateEntry(f"conv_state.{ordinal}", layer, (None, taps, conv)))
        entries.append(StateEntry(f"ssm_state.{ordinal}", layer, (None, heads, _whole(budget.mamba_head_dim), state)))
    for ordinal, layer in enumerate(attention):
        runs = (None, _whole(parent.kv_heads), None, _whole(parent.attention_head_dim))
        entries += [StateEntry(f"{kind}_cache.{ordinal}", layer, runs) for kind in ("key", "value")]
    return tuple(entries)


def kept_heads(total: int, kept: int, groups: int) -> Runs:
    """The first kept/groups heads inside each of the groups."""
    return merge_runs([(group * (total // groups), kept // groups) for group in range(groups)])


def conv_runs(parent: Architecture, ordinal: int, heads: Runs, head_dim: int) -> Runs:
    """Channels of x | B | C that stay: the first `head_dim` of every kept head, and all of B and C."""
    size = parent.mamba_head_dim
    x = [(head * size, head_dim) for start, count in heads for head in range(start, start + count)]
    return merge_runs([*x, (parent.mamba_heads[ordinal] * size, 2 * parent.ssm_groups * parent.ssm_state)])


def ports(
    model: Architecture, precision: Precision, ops: OpsMode, *, every_token: bool = False
) -> tuple[tuple[InputPort, ...], tuple[OutputPort, ...]]:
    """The I/O table of a sub-model's engine, without its weight inputs (weights.json lists those)."""
    model_states = states(model, precision)
    inputs = tuple(InputPort(p.name, p.dtype, p.shape) for p in (*token_ports(), *model_states))
    logits = logits_port(model.vocab_size, every_token=every_token)
    outputs = tuple(OutputPort(p.output, p.dtype, p.shape, p.name, p.alias(ops)) for p in model_states)
    return inputs, (OutputPort(logits.name, logits.dtype, logits.shape, None, None), *outputs)


def _whole(size: int) -> Runs:
    return ((0, size),)
