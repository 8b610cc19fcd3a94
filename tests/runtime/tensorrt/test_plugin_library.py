"""Where an engine's plugin library is found, and which one is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from elastic_runtime.errors import InputError, UnavailableError
from elastic_runtime.format.manifest import Plugin
from elastic_runtime.tensorrt.plugin_library import find_plugin, library_abi, library_name, plugin_folders

LIBRARY = b'\x7fELF junk elastic-plugins-abi/1 {"library": "1", "tensorrt": "rtx-1.7"}\0 junk'


def _text(call: Callable[[], object]) -> str:
    with pytest.raises(UnavailableError) as caught:
        call()
    return str(caught.value)


def test_a_missing_plugin_library(tmp_path: Path) -> None:
    plugin = Plugin("libelastic_plugins.so", "tensorrt-rtx-1.7")
    assert find_plugin(None, [tmp_path]) is None
    text = _text(lambda: find_plugin(plugin, [tmp_path / "a", tmp_path]))
    assert text.startswith(
        f"libelastic_plugins.so: expected the library in {tmp_path}/a, {tmp_path}, found no such file"
    )
    assert "and name its folder with --plugins" in text
    (tmp_path / plugin.library).write_bytes(LIBRARY)
    assert find_plugin(plugin, [tmp_path / "a", tmp_path]) == tmp_path / plugin.library


def test_a_plugin_library_of_another_abi(tmp_path: Path) -> None:
    path = tmp_path / "libelastic_plugins.so"
    path.write_bytes(LIBRARY)
    assert library_abi(path) == "rtx-1.7"
    text = _text(lambda: find_plugin(Plugin(path.name, "tensorrt-rtx-1.8"), [tmp_path]))
    assert text.startswith(f"{path}: expected a library for tensorrt-rtx-1.8, found one for rtx-1.7.")
    path.write_bytes(b"no versions here")
    with pytest.raises(InputError, match="expected a library of elastic plugins, found one that does not say"):
        find_plugin(Plugin(path.name, "tensorrt-rtx-1.7"), [tmp_path])


def test_a_given_folder_is_the_only_one(tmp_path: Path) -> None:
    bundle = tmp_path / "release" / "bundle"
    assert plugin_folders(bundle, "small/a.engine", tmp_path / "p") == (tmp_path / "p",)
    assert plugin_folders(bundle, "small/a.engine", None) == (bundle, bundle / "small", tmp_path / "release")


def test_a_relative_bundle_has_a_parent_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert plugin_folders(Path(), "a.engine", None)[-1] == tmp_path.parent


@pytest.mark.parametrize(
    ("name", "platform", "expected"),
    [
        ("libelastic_plugins.so", "linux", "libelastic_plugins.so"),
        ("libelastic_plugins.so", "win32", "elastic_plugins.dll"),
        ("plugins.so", "win32", "plugins.dll"),
        ("elastic_plugins.dll", "win32", "elastic_plugins.dll"),
    ],
)
def test_what_a_library_is_called(name: str, platform: str, expected: str) -> None:
    assert library_name(name, platform) == expected


def test_a_library_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a readable library, found Is a directory"):
        library_abi(tmp_path)
