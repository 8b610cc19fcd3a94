"""Folders of plugin libraries: by their description, and by the libraries' own words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from elastic_runtime.errors import InputError
from elastic_runtime.format import plugin_libraries
from elastic_runtime.format.plugin_libraries import (
    PluginLibraries,
    PluginLibrary,
    installed_libraries,
    library_mark,
    read_libraries,
)
from plugin_libraries_folder import library_bytes, write_libraries


@pytest.mark.parametrize(
    ("architecture", "served"),
    [
        ("120-real", {"12.0", "12.1"}),
        ("120", {"12.0", "12.1", "13.0"}),
        ("120-virtual", {"12.0", "12.1", "13.0"}),
        ("80-real", {"8.0", "8.6", "8.9"}),
        ("86-real", {"8.6", "8.9"}),
        ("75-real", {"7.5"}),
        ("native", {"7.5", "8.0", "8.6", "8.9", "12.0", "12.1", "13.0"}),
        ("none", set()),
    ],
)
def test_which_cards_code_runs_on(architecture: str, served: set[str]) -> None:
    """Machine code stays within its generation and never goes to an older card; PTX goes to every newer one."""
    library = PluginLibrary("a.so", 1, "0" * 64, (architecture,))
    cards = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1", "13.0")
    assert {card for card in cards if library.serves(card)} == served


def test_the_library_of_the_fewest_architectures_is_taken() -> None:
    fat = PluginLibrary("fat.so", 50, "0" * 64, ("75-real", "89-real", "120"))
    small = PluginLibrary("small.so", 10, "1" * 64, ("120-real",))
    found = PluginLibraries(Path(), "0.1.0", "rtx-1.7", "13.0", (fat, small))
    assert found.smallest(["12.0"]) is small
    assert found.smallest(["12.0", "8.9"]) is fat
    assert found.smallest(["8.0"]) is None


def test_a_folder_without_a_description_is_read_off_its_libraries(tmp_path: Path) -> None:
    data = library_bytes("one")
    (tmp_path / "libelastic_plugins.so").write_bytes(data)
    (tmp_path / "something_else.so").write_bytes(b"no mark")
    found = read_libraries(tmp_path)
    library = PluginLibrary("libelastic_plugins.so", len(data), hashlib.sha256(data).hexdigest(), ("120-real",))
    assert found == PluginLibraries(tmp_path, "0.1.0", "rtx-1.7", "13.0", (library,))
    assert found.checked(library) == tmp_path / "libelastic_plugins.so"
    (tmp_path / "libelastic_plugins.2.so").write_bytes(data.replace(b"rtx-1.7", b"rtx-1.8"))
    with pytest.raises(InputError, match=r"expected libraries of one build, found headers rtx-1\.7, rtx-1\.8"):
        read_libraries(tmp_path)
    (tmp_path / "libelastic_plugins.2.so").write_bytes(b"none")
    with pytest.raises(InputError, match="expected a library of elastic plugins, found one that does not say"):
        read_libraries(tmp_path)


def test_a_library_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a readable library, found Is a directory"):
        library_mark(tmp_path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schema": "elastic-plugins/2"}, r"schema: expected 'elastic-plugins/1', found elastic-plugins/2"),
        ({"abi": 1}, r"abi: expected text, found 1"),
        ({"more": 1}, r"expected only the fields version, abi, cuda, libraries, found 'more' as well"),
        ({"libraries": [{"file": "../a.so", "size": 1, "sha256": "0" * 64, "architectures": []}]}, "plain file name"),
        ({"libraries": [{"file": "a.so", "size": 1, "sha256": "0", "architectures": []}]}, "a sha256 of 64 hex digits"),
    ],
)
def test_damaged_descriptions_are_refused(tmp_path: Path, change: dict[str, object], text: str) -> None:
    folder = write_libraries(tmp_path / "a", library_bytes("one"))
    path = folder / "libraries.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=text):
        read_libraries(folder)


def test_the_package_is_found_and_its_code_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_libraries, "PACKAGE", "no_package_of_this_name")
    assert installed_libraries() is None
    folder = write_libraries(tmp_path / "plugins_of_a_test", library_bytes("one"))
    (folder / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugin_libraries, "PACKAGE", folder.name)
    assert installed_libraries() is None  # a folder of that name that nobody installed
    _installed(folder)
    found = installed_libraries()
    assert found is not None
    assert found.path == folder
    monkeypatch.chdir(tmp_path)  # a download may hold the record of an installation too
    assert installed_libraries() is None
    monkeypatch.syspath_prepend("")
    assert installed_libraries() is None


def _installed(folder: Path) -> None:
    """The record that an installer leaves beside a package."""
    record = folder.with_name(f"{folder.name}-0.1.0.dist-info")
    record.mkdir()
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {folder.name}\nVersion: 0.1.0\n")
