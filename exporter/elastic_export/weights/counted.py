"""What sub-models lost of a quantised file, kept beside it until its bundle is published: for a run that ended before.

The file alone does not say it, and to count it again the parent has to be read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import tensor_runs
from elastic_export.runs import TensorRuns
from elastic_export.weights.weight_loss import WeightTally
from elastic_runtime.errors import ElasticError
from elastic_runtime.format.jsonfile import read_json
from elastic_runtime.format.records import decode, encode

SCHEMA = "elastic-q8-losses/1"


@dataclass(frozen=True)
class _Counted:
    """The file's content: of which quantised file, and what was lost by the digest of what a sub-model keeps.

    Attributes:
        header: digest of the quantised file's, and of who quantised. An export of another budget file lays matrices
            into other files of the same names, and may have ended between this file and the one that it is of.
    """

    schema: str
    header: str
    losses: dict[str, WeightTally]


class Kept:
    """What some sub-models of a parent keep of its tensors.

    Attributes:
        runs: by sub-model and tensor.

    Args:
        quantiser: what tells who quantises the parent from others.
    """

    def __init__(self, parent: Architecture, prefix: str, budgets: Iterable[Budget], quantiser: str = "") -> None:
        self._quantiser = quantiser.encode()
        self.runs: dict[str, Mapping[str, TensorRuns]] = {b.name: tensor_runs(parent, b, prefix) for b in budgets}
        self._digests = {name: _digest(runs) for name, runs in self.runs.items()}

    def is_of(self, path: Path, header: bytes) -> bool:
        """Whether `write` left it beside a file with that header, by this quantiser."""
        return self._counted(path, header) is not None

    def read(self, path: Path, header: bytes) -> dict[str, WeightTally] | None:
        """What each lost of the file with that header, as `write` left it; None where that does not say it of all of
        them, or of another file.
        """
        counted = self._counted(path, header)
        if counted is None or not counted.losses.keys() >= {*self._digests.values()}:
            return None
        return {name: counted.losses[digest] for name, digest in self._digests.items()}

    def write(self, path: Path, header: bytes, lost: Mapping[str, WeightTally]) -> None:
        """Write it, so that whoever finds the file finds all of it."""
        counted = _Counted(
            SCHEMA, _of(header + self._quantiser), {digest: lost[name] for name, digest in self._digests.items()}
        )
        part = path.with_suffix(".json.part")
        part.write_text(json.dumps(encode(counted)) + "\n", "utf-8")
        complete(part, path)

    def _counted(self, path: Path, header: bytes) -> _Counted | None:
        try:
            counted = decode(_Counted, read_json(path), str(path))
        except ElasticError:
            return None
        return counted if (counted.schema, counted.header) == (SCHEMA, _of(header + self._quantiser)) else None


def _digest(runs: Mapping[str, TensorRuns]) -> str:
    return _of(json.dumps(runs).encode())


def _of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def complete(part: Path, path: Path) -> None:
    """Give a file its name once its bytes are on the disk: whoever finds that trusts them."""
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(path)
