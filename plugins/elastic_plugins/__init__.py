"""The CUDA plugin libraries of elastic-export's engines: where they are and what they were built with.

>>> import elastic_plugins
>>> [library.file for library in elastic_plugins.libraries()]

`python -m elastic_plugins` prints the same. elastic-export puts the library of an engine's GPU class into the engine,
and elastic-runtime loads those that this package knows; neither imports it, both read `libraries.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Library:
    """One shared library.

    Attributes:
        path: its file.
        size: bytes.
        sha256: 64 hex digits.
        architectures: as CMake spells them: `120-real` is machine code of sm_120, `120` besides PTX for later cards.
        abi: the TensorRT headers it was built with, such as `enterprise-11.1` or `rtx-1.7`.
        cuda: version of the CUDA toolkit that compiled it.
    """

    path: Path
    size: int
    sha256: str
    architectures: tuple[str, ...]
    abi: str
    cuda: str

    @property
    def file(self) -> str:
        """Its file's name."""
        return self.path.name


def libraries() -> tuple[Library, ...]:
    """What this package holds: one library for every architecture, then one for an architecture each."""
    known = json.loads((FOLDER / "libraries.json").read_text("utf-8"))
    return tuple(
        Library(
            FOLDER / entry["file"],
            entry["size"],
            entry["sha256"],
            tuple(entry["architectures"]),
            known["abi"],
            known["cuda"],
        )
        for entry in known["libraries"]
    )
