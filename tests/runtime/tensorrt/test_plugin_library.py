"""Where an engine's plugins come from, and which code in an engine is refused before anything is loaded."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError, ElasticError, InputError, UnavailableError
from elastic_runtime.format.manifest import CarriedLibrary, EngineEntry, Plugin
from elastic_runtime.format.manifest_reader import DamageError
from elastic_runtime.tensorrt import plugin_library
from elastic_runtime.tensorrt.plugin_library import PluginSource, plugin_source, read_engine
from plugin_libraries_folder import library_bytes, write_libraries

#: Another library, of as many bytes as the first.
LIBRARY, OTHER = library_bytes("one"), library_bytes("two")
Source = Callable[..., PluginSource]


@pytest.fixture
def entry(demo_bundle: Path) -> EngineEntry:
    """Of an engine that carries LIBRARY."""
    native = Bundle.open(demo_bundle).budget("small").engines[0]
    digest = hashlib.sha256(LIBRARY).hexdigest()
    carried = CarriedLibrary("a.so", len(LIBRARY), digest, "enterprise-11.1", ("120-real",))
    return replace(native, ops="plugin", plugin=Plugin("libelastic_plugins.so", "rtx-1.7", carried))


@pytest.fixture
def source(entry: EngineEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """`source(bytes of the engine, installed=a folder, …)` on a card of 12.0."""

    def ask(engine: bytes, *, installed: Path | None = None, listed: bool = True, **more: object) -> PluginSource:
        found = plugin_library.read_libraries(installed) if installed is not None else None
        monkeypatch.setattr(plugin_library, "installed_libraries", lambda: found)
        (tmp_path / "a.engine").write_bytes(engine)
        asked = entry if listed else replace(entry, plugin=Plugin("libelastic_plugins.so", "rtx-1.7"))
        given = {"given": None, "trusted": False} | more
        read_engine(asked, tmp_path / "a.engine")
        return plugin_source(asked, "12.0", **given)  # type: ignore[arg-type]

    return ask


def refusal(kind: type[ElasticError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def test_a_carried_library_runs_where_it_is_known_or_vouched_for(source: Source, tmp_path: Path) -> None:
    known, others = write_libraries(tmp_path / "known", LIBRARY), write_libraries(tmp_path / "others", OTHER)
    engine = b"vtrt" + LIBRARY + b"rest"
    assert source(engine, installed=known) == PluginSource(carried=True)
    assert source(engine, given=known) == PluginSource(carried=True)
    assert source(engine, trusted=True) == PluginSource(carried=True)
    text = refusal(UnavailableError, lambda: source(engine))
    assert "found one of sha256" in text
    assert "and no elastic-plugins is installed. Install the elastic-plugins" in text
    assert "say so with --trust-engine" in text
    assert f"{others} knows others" in refusal(UnavailableError, lambda: source(engine, installed=others))


@pytest.mark.parametrize("trusted", [False, True])
def test_a_swapped_library_is_refused_whoever_vouches(source: Source, tmp_path: Path, trusted: bool) -> None:
    known = write_libraries(tmp_path / "known", LIBRARY, OTHER)
    text = refusal(DamageError, lambda: source(b"vtrt" + OTHER, installed=known, trusted=trusted))
    digest = hashlib.sha256(LIBRARY).hexdigest()[:12]
    assert f"expected the plugin library of sha256 {digest}… in it, as the manifest lists it, found other code" in text
    assert text.endswith("Do not run it: get the bundle from where it was made.")
    assert "found none" in refusal(DamageError, lambda: source(b"vtrt and nothing else", trusted=trusted))
    both = refusal(DamageError, lambda: source(LIBRARY + OTHER, installed=known, trusted=trusted))
    assert f"found that and other code at byte {len(LIBRARY)}" in both


def test_unlisted_code_is_refused_in_a_native_engine_too(entry: EngineEntry, tmp_path: Path) -> None:
    native, file = replace(entry, ops="native", plugin=None), tmp_path / "a.engine"
    file.write_bytes(b"vtrt" + LIBRARY)
    text = refusal(DamageError, lambda: read_engine(native, file))
    assert "expected no code for the host in it, as the manifest lists it, found other code at byte 4" in text
    file.write_bytes(b"vtrt")
    assert read_engine(native, file) == b"vtrt"
    assert plugin_source(native, "12.0", given=None, trusted=False) == PluginSource()
    with pytest.raises(InputError, match=r"expected a readable engine, found No such file"):
        read_engine(native, tmp_path / "none")


def test_an_engine_without_a_library_takes_the_installed_or_the_named_one(source: Source, tmp_path: Path) -> None:
    installed, named = write_libraries(tmp_path / "installed", LIBRARY), write_libraries(tmp_path / "named", OTHER)
    found = source(b"vtrt", listed=False, installed=installed)
    assert found == PluginSource(library=installed / "libelastic_plugins.0.so")
    assert source(b"vtrt", listed=False, installed=installed, given=named).library == named / "libelastic_plugins.0.so"
    text = refusal(UnavailableError, lambda: source(b"vtrt", listed=False))
    assert "which carries no library, found no such package. Pip install elastic-plugins, or build plugins/" in text
    with pytest.raises(InputError, match=r"expected libraries.json or a library of elastic plugins, found no"):
        source(b"vtrt", listed=False, given=tmp_path / "nowhere")


def test_a_library_that_merely_lies_about_is_not_taken(source: Source, tmp_path: Path) -> None:
    """Beside the engine, where the bundle is, and where that lies: a download brings such files along."""
    for folder in (tmp_path, tmp_path.parent):
        (folder / "libelastic_plugins.so").write_bytes(LIBRARY)
    try:
        assert "no such package" in refusal(UnavailableError, lambda: source(b"vtrt", listed=False))
    finally:
        (tmp_path.parent / "libelastic_plugins.so").unlink()


def test_libraries_that_do_not_fit_are_named(source: Source, tmp_path: Path) -> None:
    other_abi = write_libraries(tmp_path / "abi", LIBRARY, abi="rtx-1.8")
    text = refusal(UnavailableError, lambda: source(b"vtrt", listed=False, installed=other_abi))
    assert text.startswith(f"{other_abi}: expected libraries for rtx-1.7, found those for rtx-1.8.")
    other_card = write_libraries(tmp_path / "card", LIBRARY, architectures=["89-real", "75-real"])
    text = refusal(UnavailableError, lambda: source(b"vtrt", listed=False, installed=other_card))
    assert "expected a library for compute capability 12.0, found code for 75-real, 89-real." in text
    headers = write_libraries(tmp_path / "headers", LIBRARY, abi="enterprise-11.1")
    assert source(b"vtrt", listed=False, installed=headers).library is not None


def test_a_swapped_file_of_the_package_is_refused(source: Source, tmp_path: Path) -> None:
    installed = write_libraries(tmp_path / "installed", LIBRARY)
    (installed / "libelastic_plugins.0.so").write_bytes(OTHER)
    with pytest.raises(BuildError, match=r"as its libraries.json says, found [0-9a-f]{12}…"):
        source(b"vtrt", listed=False, installed=installed)


def test_a_damaged_package_stops_its_engines_alone_where_a_damaged_named_folder_is_an_error(
    entry: EngineEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = replace(entry, plugin=Plugin("libelastic_plugins.so", "rtx-1.7"))
    folder = write_libraries(tmp_path / "installed", LIBRARY)
    monkeypatch.setattr(plugin_library, "installed_libraries", lambda: plugin_library.read_libraries(folder))

    def refused(engine: EngineEntry, subject: Path) -> None:
        text = refusal(UnavailableError, lambda: plugin_source(engine, "12.0", given=None, trusted=False))
        with pytest.raises(ElasticError) as caught:
            plugin_source(engine, "12.0", given=folder, trusted=False)
        assert not isinstance(caught.value, UnavailableError)
        assert text == str(caught.value)
        assert text.startswith(str(subject))

    (folder / "libelastic_plugins.0.so").write_bytes(OTHER)
    refused(outside, folder / "libelastic_plugins.0.so")
    (folder / "libraries.json").write_text('{"schema": "elastic-plugins/2"}')
    for engine in (entry, outside):
        refused(engine, folder / "libraries.json")


def test_a_library_for_linux_runs_nowhere_else(source: Source, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nor is anybody sent for one: elastic-plugins are for Linux. A library that the caller built and names serves."""
    installed = write_libraries(tmp_path / "installed", LIBRARY)
    monkeypatch.setattr(sys, "platform", "win32")
    native = "Take an engine of native ops: export with --ops native."
    for engine, how in (
        (LIBRARY, {"trusted": True}),
        (b"vtrt", {"listed": False}),
        (LIBRARY, {"installed": installed}),
    ):
        text = refusal(UnavailableError, lambda e=engine, h=how: source(e, **h))  # type: ignore[misc]
        assert text.endswith(
            f"expected a plugin library for win32, found elastic-plugins, which are for Linux. {native}"
        )
    text = refusal(UnavailableError, lambda: source(LIBRARY, trusted=True, given=installed))
    assert f"expected a plugin library for win32, found a.so in it, which is for Linux. {native}" in text
    found = source(b"vtrt", listed=False, given=installed)
    assert found.library == installed / "libelastic_plugins.0.so"
