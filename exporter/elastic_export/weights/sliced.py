"""Stream a sub-model out as an ordinary Hugging Face checkpoint, a few MiB at a time.

A chain of threads, so that the disk is never idle: bands of the parent's rows are read ahead (read_ahead.py), the kept
runs are cut out of each here, and what they make is written and digested (digested.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from elastic_export.checkpoint.config import LAYER_LISTS, config_document
from elastic_export.checkpoint.conversion import Conversion, Loss, convert, stored_dtype
from elastic_export.checkpoint.json_files import write_json
from elastic_export.checkpoint.reader import Checkpoint, TensorRef
from elastic_export.checkpoint.shards import INDEX
from elastic_export.checkpoint.tensors import QuantisedTensor, StoredTensor
from elastic_export.dtypes import DTYPES
from elastic_export.layers.all_kinds import AXES
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import sub_model_name, tensor_runs
from elastic_export.runs import TensorRuns, bands_of, runs_shape
from elastic_export.weights.digested import BUFFER_BYTES, DigestedFile
from elastic_export.weights.read_ahead import Span, read_ahead
from elastic_runtime.errors import NO_ROOM, BuildError, room_advice
from elastic_runtime.format.safetensors import encode_header, itemsize
from elastic_runtime.format.slicing import Array, copy_runs

#: The ONNX file of the sub-model with its weights (initialised.py); here, as a plan must not wait for onnx.
INITIALISED = "model.initialised.onnx"

#: Bytes of a shard's tensors, unless one tensor alone is larger: what file systems and hubs handle well.
MAX_SHARD_BYTES = 4 << 30
_BAND_BYTES = BUFFER_BYTES // 2  # of the parent, read and cut at once; two fill what is written at once
_GAP_BYTES = 256 << 10  # rows that are not kept: fewer are sooner read as well than skipped


#: Keys of the parent that would be untrue of a sub-model, or point to files or tensors that are not copied.
_NOT_INHERITED = (
    *LAYER_LISTS, "auto_map", "_name_or_path", "name_or_path", "_commit_hash", "elastic_per_layer_widths",
    "num_nextn_predict_layers", "quantization_config",
)  # fmt: skip
_PREDICTION_HEADS = "mtp_"  # begins the other keys of the heads beside the model, whose tensors are left out
_DTYPE_KEYS = ("torch_dtype", "dtype")  # in older and newer saves; some hold both


def write_sliced(
    checkpoint: Checkpoint,
    budget: Budget,
    directory: Path,
    *,
    dtype: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    conversion: Conversion | None = None,
    digested: Callable[[Path, str], object] = lambda path, digest: None,
) -> dict[str, TensorRef]:
    """Write config, shards and index of the sub-model `budget`.

    Any tool that loads the parent's kind of checkpoint loads it, unless FFN or head widths vary by layer: then the
    config holds lists and names them in `elastic_per_layer_widths` (see `config_for`).

    Args:
        checkpoint: the parent.
        budget: what is kept.
        directory: made if need be; files of the same names in it are replaced.
        dtype: `bf16`, `fp16` or `fp32` instead of the checkpoint's; None keeps every tensor bit for bit, and rounds
            quantised ones to the checkpoint's once they are dequantised.
        max_shard_bytes: bound of a shard's data.
        conversion: counts what `dtype`, or the rounding, takes from the weights, by the parent's tensor names.
        digested: hears of each shard and its sha256, computed on the way.

    Returns:
        By the *parent's* tensor name: the tensor in the new files.

    Raises:
        BuildError: a value that `dtype` cannot hold, or the files cannot be written.
        InputError: a quantised tensor has an element that its format does not allow.
    """
    plan = _plan(checkpoint, budget, dtype)
    shards = _shards(plan, max_shard_bytes)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "config.json", _config(checkpoint, budget, dtype))
        written: dict[str, TensorRef] = {}
        for file, parts in shards.items():
            tensors, digest = _write_shard(checkpoint, directory / file, parts, conversion)
            written |= tensors
            digested(directory / file, digest)
        _write_index(directory / INDEX, written)
    except OSError as error:
        todo = room_advice(error, "free some space") if error.errno in NO_ROOM else "name another output"
        found = error.strerror or str(error)
        raise BuildError(str(directory), expected="to write the sub-model", found=found, todo=todo) from None
    return written


def config_for(architecture: Architecture, parent_config: Mapping[str, Any]) -> dict[str, Any]:
    """The sub-model's `config.json`: the parent's, with the keys that say what it is replaced.

    The layer pattern is kept as `hybrid_override_pattern`, which old and new tools read. A width that varies by layer
    is a list, one entry a layer of the kind in the sub-model, and `elastic_per_layer_widths` names its key; where that
    is absent, every tool that reads scalar widths loads the checkpoint.
    """
    inherited = {
        key: value
        for key, value in parent_config.items()
        if key not in _NOT_INHERITED and not key.startswith(_PREDICTION_HEADS)
    }
    for name in (name for axis in AXES if axis.per_layer for name in axis.names):
        if isinstance(inherited.get(name), list):
            del inherited[name]  # of the parent's layers
    return inherited | config_document(architecture)


@dataclass(frozen=True)
class _Part:
    """One tensor on its way from the parent to a shard."""

    parent_name: str
    name: str
    dtype: str
    runs: TensorRuns

    @property
    def shape(self) -> tuple[int, ...]:
        return runs_shape(self.runs)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * itemsize(self.dtype)


def _plan(checkpoint: Checkpoint, budget: Budget, dtype: str | None) -> list[_Part]:
    parent, prefix, parts = checkpoint.architecture, checkpoint.prefix, []
    for parent_name, runs in tensor_runs(parent, budget, prefix).items():
        name = sub_model_name(parent_name, parent, budget, prefix)
        assert name is not None, "tensor_runs lists kept layers only"
        own = checkpoint.tensors[parent_name].dtype
        stored = stored_dtype(own, checkpoint.dtype, dtype) if dtype else own
        parts.append(_Part(parent_name, name, stored, runs))
    return parts


def _shards(parts: list[_Part], max_bytes: int) -> dict[str, list[_Part]]:
    """File → parts, in order, each file as full as the bound allows."""
    groups: list[list[_Part]] = [[]]
    for part in parts:
        if groups[-1] and sum(other.nbytes for other in groups[-1]) + part.nbytes > max_bytes:
            groups.append([])
        groups[-1].append(part)
    return {f"model-{i + 1:05}-of-{len(groups):05}.safetensors": group for i, group in enumerate(groups)}


def _write_shard(
    checkpoint: Checkpoint, path: Path, parts: list[_Part], conversion: Conversion | None
) -> tuple[dict[str, TensorRef], str]:
    """Where each tensor of a shard lies, by the parent's name, and the shard's sha256."""
    # transformers refuses a file whose metadata does not say which framework's layout it has.
    header, entries = encode_header({part.name: (part.dtype, part.shape) for part in parts}, {"format": "pt"})
    bands = [band for part in parts for band in _bands(checkpoint.tensors[part.parent_name], part)]
    spans = (span for band in bands for span in band.spans)
    with DigestedFile(path) as out, closing(read_ahead(spans, past_cache=True)) as read:
        out.room(len(header))[:] = header
        for band in bands:
            # What is read stays until the next is taken, so what comes before the last, a few scales, is copied.
            data = [bytearray(next(read)) for _ in band.spans[1:]]
            _cut(band, [*data, next(read)], out, conversion)
    placed = ((part.parent_name, entries[part.name]) for part in parts)
    return {parent: TensorRef(e.name, path, e.dtype, e.shape, e.offset, e.nbytes) for parent, e in placed}, out.digest


@dataclass(frozen=True)
class _Band:
    """Neighbouring rows of a tensor of the parent, and which of their elements are kept."""

    part: _Part
    tensor: StoredTensor
    spans: tuple[Span, ...]
    first: int
    count: int
    runs: TensorRuns


def _bands(tensor: StoredTensor, part: _Part) -> Iterator[_Band]:
    wide = itemsize("fp32") if isinstance(tensor, QuantisedTensor) else itemsize(tensor.dtype)
    row = wide * math.prod(tensor.shape[1:])
    for first, rows in bands_of(part.runs[0], max(1, _BAND_BYTES // row), _GAP_BYTES // row):
        count = sum(rows[-1])
        if isinstance(tensor, QuantisedTensor):  # the matrix itself, the most of it, last
            spans = tuple(Span(*place) for place in reversed(tensor.rows(first, count)))
        else:
            spans = (Span(*tensor.rows(first, count)),)
        yield _Band(part, tensor, spans, first, count, (rows, *part.runs[1:]))


def _cut(band: _Band, data: Sequence[bytearray | memoryview], out: DigestedFile, conversion: Conversion | None) -> None:
    """Append the kept elements of a band to the file, as they are stored."""
    tensor, part = band.tensor, band.part
    if isinstance(tensor, QuantisedTensor):
        kept: Array = tensor.cut(tensor.pieces(data[::-1], band.count), band.runs, band.first)
    else:
        [rows] = data
        source = np.ndarray((band.count, *tensor.shape[1:]), DTYPES[tensor.dtype].numpy, rows)
        if part.dtype == tensor.dtype:
            shape = runs_shape(band.runs)
            room = out.room(math.prod(shape) * source.itemsize)
            copy_runs(source, band.runs, into=np.ndarray(shape, source.dtype, room))
            return
        kept = copy_runs(source, band.runs)
    stored = convert(kept, part.dtype, part.parent_name)
    if conversion is not None:
        conversion.add(part.parent_name, Loss.of(kept, stored))
    out.room(stored.nbytes)[:] = stored.reshape(-1).view(np.uint8).data


def _config(checkpoint: Checkpoint, budget: Budget, dtype: str | None) -> dict[str, Any]:
    config = config_for(budget.architecture(checkpoint.architecture), checkpoint.config)
    keys = [key for key in _DTYPE_KEYS if key in config] or _DTYPE_KEYS[:1]
    return config | dict.fromkeys(keys, DTYPES[dtype or checkpoint.dtype].full)


def _write_index(path: Path, written: Mapping[str, TensorRef]) -> None:
    total = sum(ref.nbytes for ref in written.values())
    weight_map = {ref.name: ref.file.name for ref in written.values()}
    write_json(path, {"metadata": {"total_size": total}, "weight_map": weight_map})
