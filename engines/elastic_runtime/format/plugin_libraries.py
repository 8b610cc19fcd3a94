"""`libraries.json`, schema `elastic-plugins/1`: the plugin libraries that a folder holds, and where folders are.

The package elastic-plugins writes it, and so does CMake's install of plugins/. A folder without one is read off the
libraries themselves, which carry the same facts as legible text (plugins/common/abi.h).
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elastic_runtime.errors import BuildError, InputError, advised
from elastic_runtime.format.digest import file_digest, is_digest
from elastic_runtime.format.jsonfile import parse_json, read_json
from elastic_runtime.format.paths import check_file_name
from elastic_runtime.format.records import decode, show

SCHEMA = "elastic-plugins/1"
NAME = "libraries.json"
PACKAGE = "elastic_plugins"
_PATTERN = "*elastic_plugins*"
#: What CMake takes for architectures without naming any: whoever builds so knows for which card.
_UNTOLD = ("native", "all", "all-major")
_SUFFIXES = (".so", ".dll")
_MARKER = re.compile(rb"elastic-plugins-abi/1 (\{[^\0]{2,4096}\})\0")
_BUILD = "install elastic-plugins, or build plugins/ again with CMake and name its folder with --plugins"
#: Of a whole folder's description, bytes.
_READ_LIMIT = 1 << 20


@dataclass(frozen=True)
class PluginLibrary:
    """A library of a folder. `architectures` as CMake spells them: `120-real` is machine code of sm_120, `120-virtual`
    PTX of it, `120` both.
    """

    file: str
    size: int
    sha256: str
    architectures: tuple[str, ...]

    def serves(self, capability: str) -> bool:
        """Whether it runs on cards of that compute capability, such as `12.0`.

        Machine code runs on its generation, from its minor version on, PTX on everything from its version on.
        """
        return any(_serves(name, capability) for name in self.architectures)


def _serves(architecture: str, capability: str) -> bool:
    number, _, kind = architecture.partition("-")
    if not number.isdigit():
        return number in _UNTOLD
    made, card = divmod(int(number), 10), tuple(int(part) for part in capability.split("."))
    return (kind != "virtual" and made[0] == card[0] and made <= card) or (kind != "real" and made <= card)


@dataclass(frozen=True)
class PluginLibraries:
    """The libraries of a folder, of one build: `abi` names the TensorRT headers, such as `enterprise-11.1`."""

    path: Path
    version: str
    abi: str
    cuda: str
    libraries: tuple[PluginLibrary, ...]

    def smallest(self, capabilities: Collection[str]) -> PluginLibrary | None:
        """The library of the fewest architectures that runs on all those cards; None where none does."""
        able = [library for library in self.libraries if all(map(library.serves, capabilities))]
        return min(able, key=lambda library: (len(library.architectures), library.size, library.file), default=None)

    def checked(self, library: PluginLibrary) -> Path:
        """The file of one of them, once its bytes are known to be the described ones.

        Raises:
            BuildError: they are not, or it cannot be read.
        """
        path, expected = self.path / library.file, f"sha256 {library.sha256[:12]}…, as its {NAME} says"
        try:
            digest = file_digest(path)[1]
        except OSError as error:
            raise BuildError(str(path), expected=expected, found=error.strerror or "an error", todo=_BUILD) from error
        if digest != library.sha256:
            raise BuildError(str(path), expected=expected, found=f"{digest[:12]}…", todo=_BUILD)
        return path


def installed_libraries() -> PluginLibraries | None:
    """Those of the distribution elastic-plugins, whose code does not run; None where it is not installed.

    They vouch for code inside engines. So a folder of that name is not enough, nor is one in the current folder, which
    may be a download and is on the path of `python -m`: an installer must have left its record elsewhere.

    Raises:
        InputError: its description is damaged.
    """
    path = [entry for entry in sys.path if not _is_here(entry)]
    for found in importlib.metadata.distributions(name=PACKAGE, path=path):
        folder = Path(str(found.locate_file(PACKAGE)))
        if (folder / NAME).is_file():
            return read_libraries(folder)
    return None


def _is_here(entry: str) -> bool:
    """Whether an entry of the path is the current folder."""
    try:
        return not entry or Path(entry).samefile(os.curdir)
    except OSError:  # one of the two is not there
        return False


def read_libraries(folder: Path) -> PluginLibraries:
    """What a folder holds, by its `libraries.json` or, where there is none, by the libraries' own words.

    Raises:
        InputError: neither is there, or one of them is damaged.
    """
    if not (folder / NAME).is_file():
        return _described_by_themselves(folder)
    where = str(folder / NAME)
    with advised(_BUILD):
        value = read_json(folder / NAME, limit=_READ_LIMIT)
        if (schema := value.pop("schema", None)) != SCHEMA:
            raise InputError(f"{where}: schema", expected=repr(SCHEMA), found=show(schema))
        found = decode(PluginLibraries, value, where, path=folder)
        for library in found.libraries:
            check_file_name(library.file, where)
            if not is_digest(library.sha256):
                raise InputError(
                    f"{where}: {library.file}", expected="a sha256 of 64 hex digits", found=show(library.sha256)
                )
    return found


def _described_by_themselves(folder: Path) -> PluginLibraries:
    try:
        paths = sorted(path for path in folder.glob(_PATTERN) if path.suffix in _SUFFIXES and path.is_file())
    except OSError:
        paths = []
    if not paths:
        raise InputError(
            str(folder), expected=f"{NAME} or a library of elastic plugins", found="no such file", todo=_BUILD
        )
    marks = {path: library_mark(path) for path in paths}
    first = next(iter(marks.values()))
    if len({mark["tensorrt"] for mark in marks.values()}) > 1:
        found = ", ".join(sorted({mark["tensorrt"] for mark in marks.values()}))
        raise InputError(str(folder), expected="libraries of one build", found=f"headers {found}", todo=_BUILD)
    libraries = tuple(
        PluginLibrary(path.name, *file_digest(path), tuple(mark["architectures"].split(",")))
        for path, mark in marks.items()
    )
    return PluginLibraries(folder, first["library"], first["tensorrt"], first["cuda"], libraries)


def library_mark(path: Path) -> dict[str, str]:
    """What a library says of itself, read from its bytes and not by loading it: `library` (its version), `tensorrt`
    (the headers), `cuda`, `architectures`; `none` for what it does not say.

    Raises:
        InputError: not a plugin library of ours, or one that cannot be read.
    """
    mark = _mark(path)
    names = ("library", "tensorrt", "cuda", "architectures")
    return {name: mark[name] if isinstance(mark.get(name), str) else "none" for name in names}


def library_ops(path: Path) -> dict[str, str] | None:
    """The ops that a library has plugins of, with their versions, read from its bytes; None where it does not say.

    Raises:
        InputError: as `library_mark`.
    """
    ops = _mark(path).get("ops")
    return {str(name): str(version) for name, version in ops.items()} if isinstance(ops, dict) else None


def _mark(path: Path) -> dict[str, Any]:
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
        mark: dict[str, Any] = parse_json(found[1], f"{path}: versions")
    return mark
