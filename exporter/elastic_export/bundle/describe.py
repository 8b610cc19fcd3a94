"""A sub-model in the words of the manifest: widths, states with their runs, interface, memory."""

from __future__ import annotations

from elastic_export.checkpoint.architecture import Architecture
from elastic_export.checkpoint.budget import Budget
from elastic_export.engine.activation import estimated_activation
from elastic_runtime.fit import Activation, BudgetSize, vram_needed
from elastic_runtime.interface import OpsMode, StatePort, logits_port, state_ports, token_ports
from elastic_runtime.manifest import Fits, InputPort, OutputPort, Precision, StateEntry, Widths
from elastic_runtime.slicing import Run, merge_runs
from elastic_runtime.targets import Target

DTYPES: dict[Precision, str] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_ITEMSIZES: dict[Precision, int] = {"bf16": 2, "fp16": 2, "fp32": 4}


def widths(model: Architecture) -> Widths:
    """The widths of a sub-model."""
    return Widths(
        model.vocab_size,
        model.hidden_size,
        model.ffn_sizes,
        model.mamba_heads,
        model.mamba_head_dim,
        model.ssm_groups,
        model.ssm_state,
        model.conv_kernel,
        model.attention_heads,
        model.kv_heads,
        model.attention_head_dim,
    )


def has_scalar_widths(model: Architecture) -> bool:
    """Whether one number a layer kind says all: then tools that know no lists can load its config."""
    return len(set(model.ffn_sizes)) <= 1 and len(set(model.mamba_heads)) <= 1


def states(model: Architecture, precision: Precision) -> tuple[StatePort, ...]:
    """The state ports of a sub-model."""
    mamba = [
        (model.conv_kernel, model.conv_channels(i), heads, model.mamba_head_dim, model.ssm_state)
        for i, heads in enumerate(model.mamba_heads)
    ]
    attention = [(model.kv_heads, model.attention_head_dim)] * model.pattern.count("*")
    return state_ports(DTYPES[precision], mamba=mamba, attention=attention)


def state_entries(parent: Architecture, budget: Budget) -> tuple[StateEntry, ...]:
    """Every state of the sub-model with the parent's layer and, per axis, the parent's indices it keeps."""
    kept = [(i, kind, k) for i, kind, k in parent.layers() if i not in budget.skip_layers]
    mamba = [(i, k) for i, kind, k in kept if kind == "M"]
    attention = [i for i, kind, _ in kept if kind == "*"]
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


def kept_heads(total: int, kept: int, groups: int) -> tuple[Run, ...]:
    """The first kept/groups heads inside each of the groups."""
    return merge_runs([(group * (total // groups), kept // groups) for group in range(groups)])


def conv_runs(parent: Architecture, ordinal: int, heads: tuple[Run, ...], head_dim: int) -> tuple[Run, ...]:
    """Channels of x | B | C that stay: the first `head_dim` of every kept head, and all of B and C."""
    size = parent.mamba_head_dim
    x = [(head * size, head_dim) for start, count in heads for head in range(start, start + count)]
    return merge_runs([*x, (parent.inner_size(ordinal), 2 * parent.ssm_groups * parent.ssm_state)])


def ports(
    model: Architecture, precision: Precision, ops: OpsMode, *, every_token: bool = False
) -> tuple[tuple[InputPort, ...], tuple[OutputPort, ...]]:
    """The I/O table of a sub-model's engine, without its weight inputs (weights.json lists those)."""
    model_states = states(model, precision)
    inputs = tuple(InputPort(p.name, p.dtype, p.shape) for p in (*token_ports(), *model_states))
    logits = logits_port(model.vocab_size, every_token=every_token)
    outputs = tuple(OutputPort(p.output, p.dtype, p.shape, p.name, p.alias(ops)) for p in model_states)
    return inputs, (OutputPort(logits.name, logits.dtype, logits.shape, None, None), *outputs)


def budget_size(
    name: str,
    model: Architecture,
    precision: Precision,
    *,
    weight_bytes: int | None = None,
    activation: Activation | None = None,
    max_tokens: int = 256,
    max_batch: int = 1,
) -> BudgetSize:
    """What the memory of a sub-model depends on; weights and activation memory are reckoned where they are not
    known.
    """
    itemsize = _ITEMSIZES[precision]
    return BudgetSize(
        name,
        model.parameters(),
        weight_bytes if weight_bytes is not None else model.parameters() * itemsize,
        model.state_bytes(itemsize),
        model.kv_bytes_per_token(itemsize),
        activation or estimated_activation(model, precision, max_tokens=max_tokens, max_batch=max_batch),
    )


def fits(size: BudgetSize, target: Target, *, context: int, batch: int) -> Fits:
    """The manifest's reckoning of one engine."""
    need, usable = vram_needed(size, context=context, batch=batch), target.usable_bytes
    return Fits(
        context,
        batch,
        need.weights,
        need.states,
        need.caches,
        need.activation,
        need.activation_measured,
        need.reserve,
        need.total,
        usable,
        None if usable is None else need.total <= usable,
    )


def _whole(size: int) -> tuple[Run, ...]:
    return ((0, size),)
