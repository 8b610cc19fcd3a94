"""What tells two checkpoints apart without reading 24 GB.

sha256 over every tensor in the order of the names: name, dtype, shape, and the first and last 4 KiB of its bytes; and
over the architecture, because epsilon or a time-step limit change the answers without changing a tensor. Another
training step changes nearly every weight, so it changes this; a tampered middle of a tensor does not, which is what the
sha256 of the shards in the manifest is for. Resharding or moving a checkpoint leaves it as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from elastic_runtime.safetensors import TensorEntry, read_header

_SAMPLE = 4096


def fingerprint(shards: Iterable[Path], architecture: object) -> str:
    """64 hex digits for the weights in `shards` under `architecture` (a dataclass of plain values; its repr counts)."""
    tensors = [(entry, shard) for shard in shards for entry in read_header(shard).values()]
    state = hashlib.sha256(repr(architecture).encode())
    for entry, shard in sorted(tensors, key=lambda tensor: tensor[0].name):
        state.update(f"\n{entry.name} {entry.dtype} {list(entry.shape)}\n".encode())
        state.update(_ends(entry, shard))
    return state.hexdigest()


def _ends(entry: TensorEntry, shard: Path) -> bytes:
    with shard.open("rb") as file:
        file.seek(entry.offset)
        head = file.read(min(_SAMPLE, entry.nbytes))
        file.seek(entry.offset + max(0, entry.nbytes - _SAMPLE))
        return head + file.read(min(_SAMPLE, entry.nbytes))
