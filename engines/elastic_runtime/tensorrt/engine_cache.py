"""What is kept of engines outside of bundles: compiled kernels, and on which card an engine was verified.

One folder for all bundles; files are named by the digest of the engine and the card, so they serve the engine wherever
its bundle lies. A bundle is never written to. What cannot be kept, on a full disk, is kept not.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path

from elastic_runtime.cache_home import cache_home
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.jsonfile import read_json
from elastic_runtime.format.manifest import EngineEntry, Manifest, Status
from elastic_runtime.format.records import decode, encode


def cache_folder(given: Path | None) -> Path:
    """Where it is kept: as given, else ELASTIC_CACHE, else XDG_CACHE_HOME or ~/.cache.

    Where nobody knows a home (a container that runs under any user's number) it is a place that takes nothing, as a
    full disk does: an engine runs without, and compiles its kernels again.
    """
    if given is not None:
        return given
    try:
        return cache_home(os.environ, "elastic-runtime") / "kernels"
    except BuildError:
        return Path(os.devnull) / "kernels"


def kernels_file(folder: Path, manifest: Manifest, engine: EngineEntry, card: str) -> Path:
    """Compiled kernels of one engine on one kind of card; TensorRT refuses those of another driver or version."""
    return folder / f"{_stem(manifest, engine, card)}.cache"


def unkept(path: Path) -> str:
    """A warning about kernels that could not be kept in that file, before they are compiled; empty where they could be,
    and where the file is there: on a disk that cannot be written it serves all the same.
    """
    if path.is_file():
        return ""
    probe = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        return (
            f"warning: {path.parent}: compiled kernels cannot be kept there ({error.strerror}), so every start "
            "compiles them again: name a folder that you can write with ELASTIC_CACHE"
        )
    return ""


def write_kernels(path: Path, data: bytes) -> None:
    """Keep compiled kernels: the old file or the new one is there, whole, whatever ends this process meanwhile."""
    _write(path, data)


def remember(folder: Path, manifest: Manifest, engine: EngineEntry, status: Status) -> None:
    """Keep that a card verified an engine."""
    path = _status_file(folder, manifest, engine, status.card or "")
    _write(path, json.dumps({"sha256": _digest(manifest, engine), **encode(status)}).encode())


def forget(folder: Path, manifest: Manifest, engine: EngineEntry, card: str) -> None:
    """Keep nothing of a verification any more: the card gives something else now."""
    with suppress(OSError):
        _status_file(folder, manifest, engine, card).unlink(missing_ok=True)


def remembered(folder: Path, manifest: Manifest, engine: EngineEntry, card: str) -> Status | None:
    """The verification of this engine, by its digest, on this kind of card; None where there was none."""
    try:
        value = read_json(_status_file(folder, manifest, engine, card))
        # An engine that the manifest does not list has no digest, and two without one are not the same.
        same = value.pop("sha256", None) == _digest(manifest, engine) is not None
        status = decode(Status, value, "status")
    except InputError:
        return None
    return status if same and status.state == "verified" and status.card == card else None


def _write(path: Path, data: bytes) -> None:
    # Under a name of this process first: another one that reads meanwhile finds the old file or the new one, whole.
    scratch = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(data)
        scratch.replace(path)
    except OSError:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}")


def _status_file(folder: Path, manifest: Manifest, engine: EngineEntry, card: str) -> Path:
    return folder / f"{_stem(manifest, engine, card)}.verified.json"


def _stem(manifest: Manifest, engine: EngineEntry, card: str) -> str:
    return f"{(_digest(manifest, engine) or 'unlisted')[:16]}-{re.sub('[^A-Za-z0-9]+', '-', card)}"


def _digest(manifest: Manifest, engine: EngineEntry) -> str | None:
    entry = manifest.file(engine.file)
    return entry.sha256 if entry else None
