"""Building plugin libraries: what is refused before anything runs. tests/plugins builds some."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from elastic_export.engine import plugin_build
from elastic_export.engine.plugin_build import Headers, build_plugins
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.plugin_libraries import NAME


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are there, and none runs."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(plugin_build, "_run_tool", lambda *words, todo: pytest.fail(f"ran {words}"))


def test_a_missing_tool_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "nvcc" else name)
    with pytest.raises(
        InputError, match=r"^nvcc: expected the CUDA compiler of CUDA 13, found no such program\. Install"
    ):
        build_plugins(tmp_path / "out", Headers())


@pytest.mark.parametrize(
    "name", ["sm_120", "", "1", "120-real", "\N{SUPERSCRIPT TWO}\N{SUPERSCRIPT TWO}", "12", "70", "089", "0120"]
)
def test_what_is_no_architecture_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        InputError, match=r"^--arch: expected numbers of CUDA architectures from 75 on, such as 89,120, found"
    ):
        build_plugins(tmp_path / "out", Headers(), ("89", name))


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("all there is")
    with pytest.raises(InputError, match="expected a folder of plugin libraries, or none, found other things"):
        build_plugins(tmp_path, Headers())
    assert (tmp_path / "thesis.tex").read_text() == "all there is"


def test_a_folder_of_libraries_and_other_things_is_left_alone_too(tmp_path: Path) -> None:
    """The old folder goes as a whole when the new one is there."""
    for name in (NAME, "libelastic_plugins.so", "libelastic_plugins.sm120.so", "thesis.tex"):
        (tmp_path / name).write_text("all there is")
    with pytest.raises(InputError, match=r"expected a folder of plugin libraries, or none, found thesis\.tex besides"):
        build_plugins(tmp_path, Headers())


@pytest.mark.parametrize(
    ("made", "found"), [(None, "no such folder"), ("README", "a file"), ("lib/x", r"no NvInferRuntime\.h in it")]
)
def test_a_folder_without_headers_is_named(tmp_path: Path, made: str | None, found: str) -> None:
    headers = tmp_path / "sdk"
    if made == "README":
        headers.write_text("")
    elif made:
        headers.mkdir()
    expected = r"the folder of TensorRT's headers, or of an SDK with them in include/"
    with pytest.raises(InputError, match=rf"^--headers {headers}: expected {expected}, found {found}\. "):
        build_plugins(tmp_path / "out", Headers(headers))


def test_what_the_build_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[object, ...]] = []
    sdk = tmp_path / "sdk"
    (sdk / "include").mkdir(parents=True)
    (sdk / "include/NvInferRuntime.h").touch()

    def run(*words: object, todo: str) -> None:
        ran.append(words)
        raise BuildError("cmake", expected="luck", found="none")

    monkeypatch.setattr(plugin_build, "_run_tool", run)
    for headers, names in (
        (Headers(sdk), ("120",)),
        (Headers(repository=""), ("120", "89")),
        (Headers(), ("89",)),
    ):
        with pytest.raises(BuildError):
            build_plugins(tmp_path / "out", headers, names, say=str)
    one, several, bare = (set(map(str, words)) for words in ran)
    assert {"-DELASTIC_ARCHITECTURES=120-real", f"-DTENSORRT_RTX_ROOT={sdk}"} <= one
    assert {"-DELASTIC_ARCHITECTURES=89-real;120", "-DELASTIC_SINGLE_ARCHITECTURES=120;89"} <= several
    assert "-DELASTIC_FETCH_TENSORRT_HEADERS=ON" in several
    assert not {word for word in bare if "FETCH" in word or "TENSORRT_RTX_ROOT" in word}
    assert list(tmp_path.iterdir()) == [sdk]


def test_the_last_words_of_a_failed_build_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(
        BuildError, match=r"^sh -c: expected the plugin libraries to be built, found …x+ no headers\. Pray\."
    ):
        plugin_build._run_tool("sh", "-c", f"echo {'x' * 700} no headers >&2; exit 1", todo="pray")
