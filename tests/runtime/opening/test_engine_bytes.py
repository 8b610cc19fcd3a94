"""Opening an engine: the bytes that TensorRT gets, and what is said of kernels and of cards before they are."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from counting_card import CARD
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import UnavailableError
from elastic_runtime.format.manifest_reader import DamageError
from elastic_runtime.opening import Opener
from elastic_runtime.session_request import Request
from elastic_runtime.tensorrt import open_tensorrt as engine_opening
from plugin_libraries_folder import library_bytes


def test_tensorrt_gets_the_bytes_that_were_looked_into(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever swaps the file after the look has his code run by nobody."""
    _, asked = card
    moved = replace(bundle, path=tmp_path / "moved")
    shutil.copytree(bundle.path, moved.path)
    file = moved.path / "small/rtx5080.engine"
    checked = file.read_bytes()

    def load() -> str:
        file.write_bytes(b"vtrt" + library_bytes("swapped"))
        return "trt"

    monkeypatch.setattr(engine_opening, "load_tensorrt", load)
    Opener(moved, Request(budget="small")).open().close()
    assert asked[0]["data"] == checked
    with pytest.raises(DamageError, match="expected no code for the host in it"):
        Opener(moved, Request(budget="small")).open()


@pytest.mark.parametrize("at", [0, -1])
def test_an_engine_that_changed_is_refused_before_tensorrt_is_loaded(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: int
) -> None:
    """Opening a bundle digests small files alone, and TensorRT takes whatever follows a sound header."""
    moved = replace(bundle, path=tmp_path / "moved")
    shutil.copytree(bundle.path, moved.path)
    file = moved.path / "small/rtx5080.engine"
    changed = bytearray(file.read_bytes())
    changed[at] ^= 1
    file.write_bytes(changed)
    monkeypatch.setattr(engine_opening, "load_tensorrt", lambda: pytest.fail("TensorRT was loaded"))
    with pytest.raises(DamageError, match=r"rtx5080\.engine: expected sha256 .* Copy the bundle again"):
        Opener(moved, Request(budget="small")).open()


def test_a_card_of_another_class_is_sent_for_an_engine_and_not_for_a_smaller_context(bundle: Bundle, card: Any) -> None:
    with pytest.raises(UnavailableError) as caught:
        engine_opening.select_engine(bundle.budget("small"), Request(), replace(CARD, compute_capability="8.9"))
    assert str(caught.value) == (
        "budget 'small': expected an engine for GeForce RTX 5080, found no engine for compute capability 8.9. "
        "Export for this card with --target, or take the backend onnxruntime."
    )


def test_where_kernels_cannot_be_kept_it_is_said_and_the_engine_runs(
    bundle: Bundle, card: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, asked = card
    said: list[str] = []
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path / "file"))
    Opener(bundle, Request(budget="small"), say=said.append).open().close()
    assert asked[0]["cache"] is None
    assert said[1].startswith(f"warning: {tmp_path / 'file' / 'kernels'}: compiled kernels cannot be kept there (Not a")
