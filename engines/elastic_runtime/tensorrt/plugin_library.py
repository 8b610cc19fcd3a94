"""How TensorRT comes by the plugins of an engine, and what of the code in a download may run.

TensorRT-RTX 1.7.1 loads a library that an engine carries while it reads the engine, before it looks at the card and
whatever `Runtime.engine_host_code_allowed` says (measured: without a driver too, where the engine itself is refused
afterwards). So an engine file is a program, and is looked into before TensorRT sees it: it may hold the library that
the manifest lists and no other code, and that one only where the installed elastic-plugins knows its digest or the
caller vouches for it. The manifest came with the download, so its word alone is worth nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from elastic_runtime.errors import BuildError, InputError, UnavailableError
from elastic_runtime.format.engine_code import Code, HostCode, host_code
from elastic_runtime.format.manifest import CarriedLibrary, EngineEntry
from elastic_runtime.format.manifest_reader import DamageError
from elastic_runtime.format.plugin_libraries import PluginLibraries, installed_libraries, read_libraries

_LEAVE_IT = "do not run it: get the bundle from where it was made"
_GET_ONE = "pip install elastic-plugins, or build plugins/ with CMake and name its folder with --plugins"
#: Libraries of other headers than TensorRT's own that were shown to fit: engines are built through their creators, to
#: the same bytes as those of the declaration in Python (tests/plugins/test_library.py).
_SHOWN_TO_FIT = {"rtx-1.7": ("enterprise-11.1",)}


@dataclass(frozen=True)
class PluginSource:
    """Where an engine's plugins come from: a file to load before it, or the engine itself, which may then run the
    library it carries; neither for an engine without plugins. Never both: TensorRT takes a plugin's name once.
    """

    library: Path | None = None
    carried: bool = False


def plugin_source(engine: EngineEntry, capability: str, *, given: Path | None, trusted: bool) -> PluginSource:
    """How an engine comes by its plugins on a card. Nothing is loaded, and the engine is not read: `read_engine` does.

    Args:
        engine: its entry.
        capability: of the card, such as `12.0`.
        given: a folder of plugin libraries that the caller names, and vouches for; then no other is asked.
        trusted: the caller vouches for the code inside the engine.

    Raises:
        UnavailableError: there is no library that fits, or the one inside is known to nobody here; the installed
            package is damaged or of a later format, which leaves the engines that need none.
        InputError: the folder that was named holds no libraries, or its description is damaged.
        BuildError: the library there is not the one that its description is of.
    """
    if engine.plugin is None:
        return PluginSource()
    if given is not None:
        return _source(engine, capability, read_libraries(given), trusted=trusted)
    if not sys.platform.startswith("linux"):
        raise _for_linux(engine.file, "elastic-plugins, which are for Linux")
    try:
        return _source(engine, capability, installed_libraries(), trusted=trusted)
    except UnavailableError:
        raise
    except (InputError, BuildError) as error:
        raise UnavailableError(error.subject, expected=error.expected, found=error.found, todo=error.todo) from error


def _source(engine: EngineEntry, capability: str, libraries: PluginLibraries | None, *, trusted: bool) -> PluginSource:
    assert engine.plugin is not None, "asked for an engine with plugins"
    if engine.plugin.carried is None:
        return PluginSource(library=_outside(engine, capability, libraries))
    _check_known(engine, engine.plugin.carried, libraries, trusted=trusted)
    return PluginSource(carried=True)


def read_engine(engine: EngineEntry, file: Path) -> bytes:
    """An engine file that holds the library that its entry lists, byte for byte, and no other code for the host.

    TensorRT is to be given these bytes: a file that is read again may have changed meanwhile.

    Raises:
        DamageError: it holds something else.
        InputError: it cannot be read.
    """
    carried = engine.plugin.carried if engine.plugin is not None else None
    listed = () if carried is None else (Code(carried.size, carried.sha256),)
    try:
        data = file.read_bytes()
    except OSError as error:
        todo = "make it readable, or copy the bundle again"
        raise InputError(
            str(file), expected="a readable engine", found=error.strerror or "an error", todo=todo
        ) from error
    found = host_code(data, listed)
    if found == HostCode(listed, ()):
        return data
    expected = f"the plugin library of sha256 {carried.sha256[:12]}… in it" if carried else "no code for the host in it"
    raise DamageError(
        engine.file, expected=f"{expected}, as the manifest lists it", found=_found(found, listed), todo=_LEAVE_IT
    )


def _found(found: HostCode, listed: Iterable[Code]) -> str:
    if found.unknown:
        what = "that and other code" if found.known else "other code"
        return f"{what} at byte {found.unknown[0]}"
    return "it several times" if found.known and listed else "none"


def _check_known(
    engine: EngineEntry, carried: CarriedLibrary, libraries: PluginLibraries | None, *, trusted: bool
) -> None:
    if not sys.platform.startswith("linux"):
        raise _for_linux(engine.file, f"{carried.file} in it, which is for Linux")
    known = {library.sha256 for library in libraries.libraries} if libraries is not None else set()
    if trusted or carried.sha256 in known:
        return
    here = "no elastic-plugins is installed" if libraries is None else f"{libraries.path} knows others"
    raise UnavailableError(
        engine.file,
        expected="a plugin library in it that is known here",
        found=f"one of sha256 {carried.sha256[:12]}…, and {here}",
        todo="install the elastic-plugins that it was exported with, or, if you trust whoever made the bundle, say so"
        " with --trust-engine",
    )


def _for_linux(file: str, found: str) -> UnavailableError:
    todo = "take an engine of native ops: export with --ops native"
    return UnavailableError(file, expected=f"a plugin library for {sys.platform}", found=found, todo=todo)


def _outside(engine: EngineEntry, capability: str, libraries: PluginLibraries | None) -> Path:
    """The library of an engine that carries none. Raises UnavailableError."""
    assert engine.plugin is not None, "asked for an engine with plugins"
    wanted = engine.plugin.abi.removeprefix("tensorrt-")
    if libraries is None:
        raise UnavailableError(
            engine.plugin.library,
            expected=f"elastic-plugins for {engine.file}, which carries no library",
            found="no such package",
            todo=_GET_ONE,
        )
    if libraries.abi not in (wanted, *_SHOWN_TO_FIT.get(wanted, ())):
        raise UnavailableError(
            str(libraries.path), expected=f"libraries for {wanted}", found=f"those for {libraries.abi}", todo=_GET_ONE
        )
    library = libraries.smallest((capability,))
    if library is None:
        held = sorted({name for each in libraries.libraries for name in each.architectures})
        raise UnavailableError(
            str(libraries.path),
            expected=f"a library for compute capability {capability}",
            found=f"code for {', '.join(held)}",
            todo=_GET_ONE,
        )
    return libraries.checked(library)
