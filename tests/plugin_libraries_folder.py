"""Folders of plugin libraries as elastic-plugins holds them, of bytes that no loader gets to see."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def library_bytes(words: str, machine: int = 62, ops: dict[str, str] | None = None) -> bytes:
    """A library: an ELF header, of x86-64 unless told otherwise, the mark, and what tells it from others."""
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + (3).to_bytes(2, "little") + machine.to_bytes(2, "little")
    mark: dict[str, object] = {"library": "0.1.0", "tensorrt": "rtx-1.7", "cuda": "13.0", "architectures": "120-real"}
    if ops is not None:
        mark |= {"ops": ops}
    text = b"elastic-plugins-abi/1 " + json.dumps(mark).encode() + b"\0"
    return header + (1).to_bytes(4, "little") + words.encode() + text


def write_libraries(
    folder: Path, *libraries: bytes, abi: str = "rtx-1.7", architectures: list[str] | None = None
) -> Path:
    """Write them, and `libraries.json` beside them."""
    folder.mkdir(parents=True)
    entries = []
    for number, data in enumerate(libraries):
        file = f"libelastic_plugins.{number}.so"
        (folder / file).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        entry = {"file": file, "size": len(data), "sha256": digest, "architectures": architectures or ["120-real"]}
        entries.append(entry)
    found = {"schema": "elastic-plugins/1", "version": "0.1.0", "abi": abi, "cuda": "13.0", "libraries": entries}
    (folder / "libraries.json").write_text(json.dumps(found))
    return folder
