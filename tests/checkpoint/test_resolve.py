"""What `--checkpoint` and ELASTIC_CHECKPOINT may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from elastic_export.checkpoint.resolve import hub_cache, resolve_checkpoint
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


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_a_cached_repository(tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    below = {"HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub", "HOME": ".cache/huggingface/hub"}
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = snapshot(tmp_path / below.get(variable, ""), "abc", main="abc")
    snapshot(tmp_path / below.get(variable, ""), "def")
    assert resolve_checkpoint("nvidia/Nemotron-Elastic-12B", {variable: str(tmp_path)}) == expected
    assert hub_cache({variable: str(tmp_path)}) == expected.parents[2]


def test_the_only_snapshot_needs_no_mark(tmp_path: Path) -> None:
    expected = snapshot(tmp_path, "abc")
    assert resolve_checkpoint("nvidia/Nemotron-Elastic-12B", {"HF_HUB_CACHE": str(tmp_path)}) == expected


def test_faults(tmp_path: Path) -> None:
    cache = {"HF_HUB_CACHE": str(tmp_path)}
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
        ("/no/such/folder", cache, f"--checkpoint: {what}, found '/no/such/folder'."),
        (str(file), cache, f"--checkpoint: {what}, found '{file}'."),
        ("../x", cache, f"--checkpoint: {what}, found '../x'."),
        ("a\0b", cache, f"--checkpoint: {what}, found 'a\\x00b'."),
        (
            "nvidia/other",
            cache,
            "--checkpoint: expected a folder or a repository in the local cache, found 'nvidia/other', neither a "
            f"folder nor in {tmp_path}. Download it: hf download nvidia/other.",
        ),
        ("nvidia/Nemotron-Elastic-12B", cache, "found 2 snapshots and none marked as main. Pass the folder of one: "),
        (
            None,
            {"ELASTIC_CHECKPOINT": "nvidia/other", **cache},
            "ELASTIC_CHECKPOINT: expected a folder or a repository",
        ),
    ):
        with pytest.raises(InputError) as caught:
            resolve_checkpoint(argument, environ)
        assert message in str(caught.value)
