"""What has been measured, kept in a file beside the output: an interrupted search goes on there.

The search is a function of its inputs and of what it measures, so that whoever begins again with what was measured
comes to the same point, and from there to the same end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from elastic_export import __version__
from elastic_export.checkpoint.reader import Checkpoint, TensorRef
from elastic_export.checkpoint.tensors import QuantisedTensor
from elastic_runtime.errors import NO_ROOM, BuildError, ElasticError, InputError, room_advice
from elastic_runtime.format.jsonfile import read_json
from elastic_runtime.format.records import decode

_SCHEMA = "elastic-proposing/1"
Values = list[float]


@dataclass(frozen=True)
class _Kept:
    """The file."""

    schema: str
    inputs: str
    found: dict[str, tuple[float, ...]]


class Store:
    """Measurements by key.

    Args:
        file: where they are; it need not be there.
        inputs: what they depend on. A file of other inputs is not read, and written over.
    """

    def __init__(self, file: Path, inputs: Mapping[str, Any]) -> None:
        self._file = file
        text = json.dumps({"producer": __version__, **inputs}, sort_keys=True)
        self._digest = sha256(text.encode()).hexdigest()
        self._found: dict[str, Values] = {}
        self.other = False
        if file.is_file():
            self._read()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._found)

    def get(self, key: str) -> Values | None:
        """What was measured, if it was."""
        return self._found.get(key)

    def put(self, found: Mapping[str, Values]) -> None:
        """Keep them, at once on the disk; where that fails, the file stays as it was.

        Raises:
            InputError: the file cannot be written.
            BuildError: the disk is full.
        """
        self._found.update(found)
        document = {"schema": _SCHEMA, "inputs": self._digest, "found": self._found}
        beside = self._file.with_name(self._file.name + ".new")
        try:
            try:
                beside.write_text(json.dumps(document), "utf-8")
                beside.replace(self._file)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as error:
            subject, why = str(self._file), error.strerror or str(error)
            if error.errno in NO_ROOM:
                todo = room_advice(error, "free some space there, or name another --output")
                raise BuildError(subject, expected="room to write", found=why, todo=todo) from error
            expected, todo = "a file that can be written", "name another --output"
            raise InputError(subject, expected=expected, found=why, todo=todo) from error

    def remove(self) -> None:
        """After the end."""
        self._file.unlink(missing_ok=True)

    def _read(self) -> None:
        try:
            kept = decode(_Kept, read_json(self._file), str(self._file))
        except ElasticError:  # cut off, or edited: nothing of it can be trusted
            self.other = True
            return
        self.other = (kept.schema, kept.inputs) != (_SCHEMA, self._digest)
        if not self.other:
            self._found = {key: list(values) for key, values in kept.found.items()}


def checkpoint_inputs(checkpoint: Checkpoint) -> dict[str, Any]:
    """What tells a checkpoint from another, without reading its weights: its config, and its files' names, sizes and
    times of change.
    """
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(checkpoint.shards)]
    tensors = [(ref.name, ref.dtype, ref.shape, _offsets(ref)) for ref in checkpoint.tensors.values()]
    return {"config": str(checkpoint.config), "files": files, "tensors": tensors}


def _offsets(tensor: TensorRef | QuantisedTensor) -> list[int]:
    return [part.offset for part in (tensor.by_rows if isinstance(tensor, QuantisedTensor) else (tensor,))]
