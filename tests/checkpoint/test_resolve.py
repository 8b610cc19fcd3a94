"""What `--checkpoint` and ELASTIC_CHECKPOINT may say."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from elastic_export.checkpoint.resolve import resolve_checkpoint
from elastic_runtime.errors import InputError


def snapshot(cache: Path, commit: str, main: str | None = None) -> Path:
    folder = cache / "models--nvidia--Nemotron-Elastic-12B"
    (folder / "snapshots" / commit).mkdir(parents=True)
    if main is not None:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(main)
    return folder / "snapshots" / commit


def test_neither_is_the_demo() -> None:
    assert resolve_checkpoint(None, {}) is None


def test_a_folder(tmp_path: Path) -> None:
    assert resolve_checkpoint(str(tmp_path), {"ELASTIC_CHECKPOINT": "/elsewhere"}) == tmp_path
    assert resolve_checkpoint(None, {"ELASTIC_CHECKPOINT": str(tmp_path)}) == tmp_path


@pytest.fixture
def fresh_constants() -> Iterator[Callable[[dict[str, str]], None]]:
    """huggingface_hub as a process with these variables would import it."""
    with pytest.MonkeyPatch.context() as patch:

        def reload(environ: dict[str, str]) -> None:
            for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
                patch.delenv(name, raising=False)
            for name, value in environ.items():
                patch.setenv(name, value)
            importlib.reload(constants)

        yield reload
    importlib.reload(constants)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("variable", "value", "folder"),
    [
        ("HF_HUB_CACHE", "{}", ""),
        ("HUGGINGFACE_HUB_CACHE", "{}", ""),
        ("HF_HOME", "{}", "hub"),
        ("HF_HOME", "$SCRATCH/hf", "hf/hub"),
        ("XDG_CACHE_HOME", "{}", "huggingface/hub"),
        ("HOME", "{}", ".cache/huggingface/hub"),
    ],
)
def test_a_cached_repository(
    tmp_path: Path, fresh_constants: Callable[[dict[str, str]], None], variable: str, value: str, folder: str
) -> None:
    base = str(tmp_path)
    fresh_constants({"HOME": base, "SCRATCH": base, variable: value.format(base)})
    expected = snapshot(tmp_path / folder, "abc", main="abc")
    snapshot(tmp_path / folder, "def")
    assert resolve_checkpoint("nvidia/Nemotron-Elastic-12B", {}) == expected


def test_the_only_snapshot_needs_no_mark(cache: Path) -> None:
    expected = snapshot(cache, "abc")
    assert resolve_checkpoint("nvidia/Nemotron-Elastic-12B", {}) == expected


def test_faults(tmp_path: Path, cache: Path) -> None:
    snapshot(tmp_path, "abc")
    snapshot(tmp_path, "def")
    file = tmp_path / "file"
    file.write_text("x")
    what = "expected a folder or a Hugging Face repository id"
    for argument, environ, message in (
        (
            None,
            {"ELASTIC_CHECKPOINT": ""},
            f"ELASTIC_CHECKPOINT: {what}, found an empty value. Unset it to export the demo",
        ),
        ("", {"ELASTIC_CHECKPOINT": "x"}, f"--checkpoint: {what}, found an empty value."),
        ("  ", {}, f"--checkpoint: {what}, found an empty value."),
        ("/no/such/folder", {}, f"--checkpoint: {what}, found '/no/such/folder'."),
        (str(file), {}, f"--checkpoint: {what}, found '{file}'."),
        ("../x", {}, f"--checkpoint: {what}, found '../x'."),
        ("a\0b", {}, f"--checkpoint: {what}, found 'a\\x00b'."),
        (
            "nvidia/other",
            {},
            "--checkpoint: expected a folder or a repository in the local cache, found 'nvidia/other', neither a "
            f"folder nor in {cache}. Download it: hf download nvidia/other.",
        ),
        ("nvidia/Nemotron-Elastic-12B", {}, "found 2 snapshots and none marked as main. Pass the folder of one: "),
        (
            None,
            {"ELASTIC_CHECKPOINT": "nvidia/other"},
            "ELASTIC_CHECKPOINT: expected a folder or a repository",
        ),
    ):
        with pytest.raises(InputError) as caught:
            resolve_checkpoint(argument, environ)
        assert message in str(caught.value)
