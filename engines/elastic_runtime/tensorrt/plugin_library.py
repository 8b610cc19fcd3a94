"""The plugin library of an engine: what it is called here, where it is looked for, and what it was made for."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from elastic_runtime.errors import InputError, UnavailableError, advised
from elastic_runtime.format.jsonfile import parse_json
from elastic_runtime.format.manifest import Plugin

_BUILD = "build plugins/ again with CMake, and name its folder with --plugins"
_MARKER = re.compile(rb"elastic-plugins-abi/1 (\{[^\0]{2,4096}\})\0")


def library_name(name: str, platform: str = sys.platform) -> str:
    """What a library is called on a platform: `libelastic_plugins.so` of a manifest is `elastic_plugins.dll` on
    Windows.
    """
    stem, dot, _ = name.rpartition(".so")
    return f"{stem.removeprefix('lib')}.dll" if platform == "win32" and dot else name


def plugin_folders(bundle: Path, engine_file: str, given: Path | None) -> tuple[Path, ...]:
    """Where an engine's library is looked for, in order: the given folder and nowhere else; without one the bundle,
    the folder of the engine, and the folder that the bundle lies in.
    """
    if given is not None:
        return (given,)
    return (bundle, (bundle / engine_file).parent, bundle.absolute().parent)


def find_plugin(plugin: Plugin | None, folders: Sequence[Path]) -> Path | None:
    """The plugin library of an engine, its ABI read from the file; None for an engine without plugins.

    Args:
        plugin: of the engine's entry.
        folders: where to look, in order (`plugin_folders`).

    Raises:
        UnavailableError: it is in none of them, or made for another TensorRT.
    """
    if plugin is None:
        return None
    name = library_name(plugin.library)
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if path is None:
        where = ", ".join(map(str, folders))
        todo = "build plugins/ with CMake against the SDK of that version, and name its folder with --plugins"
        raise UnavailableError(name, expected=f"the library in {where}", found="no such file", todo=todo)
    found = library_abi(path)
    if found.removeprefix("tensorrt-") != plugin.abi.removeprefix("tensorrt-"):
        todo = "build plugins/ against the SDK headers of that version, and name its folder with --plugins"
        raise UnavailableError(str(path), expected=f"a library for {plugin.abi}", found=f"one for {found}", todo=todo)
    return path


def library_abi(path: Path) -> str:
    """The TensorRT ABI that a plugin library was made for, read from its bytes and not by loading it.

    Raises:
        InputError: not a plugin library of ours, or one that cannot be read.
    """
    try:
        found = _MARKER.search(path.read_bytes())
    except OSError as error:
        raise InputError(
            str(path),
            expected="a readable library",
            found=error.strerror or "an error",
            todo="make it readable, or name another folder with --plugins",
        ) from error
    if found is None:
        raise InputError(
            str(path), expected="a library of elastic plugins", found="one that does not say its versions", todo=_BUILD
        )
    with advised(_BUILD):
        abi = parse_json(found[1], f"{path}: versions").get("tensorrt")
    return abi if isinstance(abi, str) else "none"
