"""What tells two checkpoints apart without reading 24 GB.

sha256 over the architecture, because epsilon or a time-step limit change the answers without changing a tensor, and
over every tensor in the order of the names: name, dtype, shape, and the first and last 4 KiB of its bytes. Another
training step changes nearly every weight, so it changes this; a tampered middle of a tensor does not, which is what the
sha256 of the shards in the manifest is for. Resharding or moving a checkpoint leaves it as it is.

The encoding is elastic-fingerprint/1, all UTF-8 and "\n" a line feed:

    Architecture(<name>=<value>, <name>=<value>, …)      names and order of `encoded`
    \n<name> <dtype> [<size>, <size>, …]\n<bytes>        a tensor, the names ascending

A whole number is decimal, a real one the shortest decimal that gives it back (`1e-05`, `0.0`, `inf`), a text is in
single quotes, a list in parentheses, with a comma after its only entry: `(72,)`. Bundles hold the digest and `--add`
compares it, so the bytes must stay: a fact that architectures get later is written only where it is not what older ones
mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from elastic_export.layers.all_kinds import AXES
from elastic_export.layers.architecture import Architecture
from elastic_runtime.errors import advised
from elastic_runtime.format.safetensors import TensorEntry, read_header

_SAMPLE = 4096
_Value = int | float | str | tuple[int, ...] | tuple[float, ...]


def fingerprint(shards: Iterable[Path], architecture: Architecture) -> str:
    """64 hex digits for the weights in `shards` under `architecture`."""
    with advised("leave the shards alone while they are read"):
        tensors = [(entry, shard) for shard in shards for entry in read_header(shard).values()]
    state = hashlib.sha256(encoded(architecture).encode())
    for entry, shard in sorted(tensors, key=lambda tensor: tensor[0].name):
        state.update(f"\n{entry.name} {entry.dtype} {list(entry.shape)}\n".encode())
        state.update(_ends(entry, shard))
    return state.hexdigest()


def encoded(a: Architecture) -> str:
    """The facts under the names of the encoding, whatever the fields are called."""
    facts: dict[str, _Value] = {
        "pattern": a.pattern,
        "vocab_size": a.vocab_size,
        "hidden_size": a.hidden_size,
        "ffn_sizes": a.ffn_sizes,
        "mamba_heads": a.mamba_heads,
        "mamba_head_dim": a.mamba_head_dim,
        "ssm_groups": a.ssm_groups,
        "ssm_state": a.ssm_state,
        "conv_kernel": a.conv_kernel,
        "attention_heads": a.attention_heads,
        "kv_heads": a.kv_heads,
        "attention_head_dim": a.attention_head_dim,
        "epsilon": a.epsilon,
        "time_step_limit": a.time_step_limit,
    }
    later = {axis.field: getattr(a, axis.field) for axis in AXES if axis.field not in facts}
    facts |= {name: value for name, value in later.items() if value}  # absent where older models have no such layer
    return f"Architecture({', '.join(f'{name}={_text(value)}' for name, value in facts.items())})"


def _text(value: _Value) -> str:
    if isinstance(value, tuple):
        return f"({_text(value[0])},)" if len(value) == 1 else f"({', '.join(_text(entry) for entry in value)})"
    return f"'{value}'" if isinstance(value, str) else repr(value)


def _ends(entry: TensorEntry, shard: Path) -> bytes:
    with shard.open("rb") as file:
        file.seek(entry.offset)
        head = file.read(min(_SAMPLE, entry.nbytes))
        file.seek(entry.offset + max(0, entry.nbytes - _SAMPLE))
        return head + file.read(min(_SAMPLE, entry.nbytes))
