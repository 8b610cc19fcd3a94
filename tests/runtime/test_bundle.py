from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from elastic_runtime import Bundle
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import InputError
from elastic_runtime.format.manifest import FileEntry, Manifest
from elastic_runtime.format.manifest_reader import DamageError
from elastic_runtime.verify.bundle_verification import verify_bundle


def files(bundle: Path) -> list[Path]:
    return sorted(path for path in bundle.rglob("*") if path.is_file())


def test_opens_and_answers(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert [b.name for b in opened.budgets] == ["12b", "9b", "4b"]
    chosen = opened.choose(vram=24 << 30, context=16384)
    assert chosen.budget == opened.budget("9b")
    assert chosen.engine is not None
    assert chosen.engine.file == "9b/rtx5090.16384.engine"
    with pytest.raises(
        InputError, match=r"budget '6b': expected one of 12b, 9b, 4b, found no such budget in the bundle\. Name one"
    ):
        opened.budget("6b")


def test_a_bundle_can_be_moved(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "far" / "away")
    shutil.rmtree(bundle)
    assert Bundle.open(str(tmp_path / "far" / "away"), "digests").manifest.budgets


def test_every_flipped_bit_in_every_file_is_found_and_the_file_named(bundle: Path) -> None:
    generator = random.Random(2)
    for path in files(bundle):
        data = path.read_bytes()
        for _ in range(3):
            place, bit = generator.randrange(len(data)), generator.randrange(8)
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            with pytest.raises(DamageError, match=path.name) as error:
                Bundle.open(bundle, "digests")
            assert error.value.exit_code == 1
        path.write_bytes(data)
    Bundle.open(bundle, "digests")


def test_cheap_check_sees_sizes_of_all_and_bits_of_small_files(bundle: Path) -> None:
    shard, engine = bundle / "weights" / "model.safetensors", bundle / "4b" / "rtx5090.4096.engine"
    good = shard.read_bytes()
    assert len(good) > 1 << 20
    shard.write_bytes(b"X" + good[1:])
    Bundle.open(bundle)  # too large to digest at each start: that is what "digests" is for
    with pytest.raises(DamageError, match=r"model\.safetensors: expected sha256"):
        Bundle.open(bundle, "digests")
    shard.write_bytes(good[:-1])
    with pytest.raises(DamageError, match=f"expected {len(good)} bytes, found {len(good) - 1}"):
        Bundle.open(bundle)
    shard.write_bytes(good + b"X")
    with pytest.raises(DamageError, match=f"expected {len(good)} bytes, found {len(good) + 1}"):
        Bundle.open(bundle)
    shard.write_bytes(good)
    engine.write_bytes(b"X" + engine.read_bytes()[1:])
    with pytest.raises(DamageError, match=r"rtx5090\.4096\.engine: expected sha256"):
        Bundle.open(bundle)


def test_missing_and_swapped_files_are_named(bundle: Path) -> None:
    a, b = bundle / "4b/model.onnx", bundle / "9b/model.onnx"
    a.rename(bundle / "x")
    with pytest.raises(
        DamageError, match=r"4b/model\.onnx: expected a file of the bundle, found none\. Copy the bundle"
    ):
        Bundle.open(bundle)
    b.rename(a)
    (bundle / "x").rename(b)
    with pytest.raises(DamageError, match=r"9b/model\.onnx|4b/model\.onnx"):
        Bundle.open(bundle)


def test_a_link_out_of_the_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    model = bundle / "4b/model.onnx"
    model.rename(tmp_path / "model.onnx")
    model.symlink_to(tmp_path / "model.onnx")
    with pytest.raises(InputError, match="found a link to"):
        Bundle.open(bundle)


def test_a_link_to_itself_is_refused(bundle: Path) -> None:
    model = bundle / "4b/model.onnx"
    model.unlink()
    model.symlink_to(model)
    with pytest.raises(InputError, match=r"4b/model\.onnx: expected a file"):
        Bundle.open(bundle)


def test_a_file_that_cannot_be_read_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("elastic_runtime.bundle.file_digest", refuse)
    with pytest.raises(InputError, match="expected a readable file, found Permission denied"):
        Bundle.open(bundle)


def test_a_folder_of_weights_is_refused_where_the_bundle_holds_them(bundle: Path, tmp_path: Path) -> None:
    """Files there would be taken unchecked in place of those that the manifest lists."""
    with pytest.raises(InputError, match=f"weights folder {tmp_path}: expected none: {bundle} holds its weights"):
        Bundle.open(bundle, external=tmp_path)


def test_without_memory_named_the_card_is_asked(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Bundle.open(bundle)
    monkeypatch.setattr("elastic_runtime.bundle.card", lambda: Card("RTX 5090", "12.0", 32 << 30, 24 << 30))
    found = opened.choose(context=16384)
    assert (found.vram, found.budget) == (24 << 30, opened.budget("9b"))
    monkeypatch.setattr("elastic_runtime.bundle.card", lambda: Card("RTX 4090", "8.9", 24 << 30, 24 << 30))
    assert opened.choose(context=16384).reckonings[0].refusal == "no engine for compute capability 8.9"
    assert opened.choose(context=16384, compute_capability="12.0").budget == opened.budget("9b")
    monkeypatch.undo()
    monkeypatch.setattr("elastic_runtime.driver.free_memory._LIBRARIES", ("libno-such-ml.so.1",))
    with pytest.raises(InputError, match="GPU memory: expected an NVIDIA driver that says how much is free"):
        opened.choose(context=16384)


def test_progress_counts_every_byte(bundle: Path) -> None:
    pieces: list[int] = []
    opened = Bundle.open(bundle, "digests", on_bytes=pieces.append)
    assert sum(pieces) == sum(entry.size for entry in opened.manifest.files)


def test_external_weights_are_checked_where_the_consumer_says(bundle: Path, tmp_path: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    shard = manifest.file("weights/model.safetensors")
    assert shard is not None
    outside = replace(
        manifest,
        files=tuple(f for f in manifest.files if f != shard),
        external_weights=(FileEntry("model.safetensors", shard.size, shard.sha256),),
    )
    (bundle / "manifest.json").write_text(outside.to_json())
    (bundle / "weights").rename(tmp_path / "hub")
    Bundle.open(bundle, "digests")
    assert Bundle.open(bundle, "digests", external=tmp_path / "hub").external == tmp_path / "hub"
    told = rf"^{tmp_path}/model\.safetensors: expected a file of the bundle, found none\. Name the folder of the shards"
    with pytest.raises(DamageError, match=told):
        Bundle.open(bundle, external=tmp_path)
    [damage] = verify_bundle(bundle, external=tmp_path).damaged
    assert re.match(told, damage)


def test_recipes(bundle: Path, manifest: Manifest, reseal: Callable[[str], bytes]) -> None:
    opened = Bundle.open(bundle)
    with pytest.raises(InputError, match=r"4b/weights\.json: expected valid JSON"):
        opened.recipe(opened.budget("4b"))
    with pytest.raises(
        InputError, match=r"expected shared or sliced weights, found embedded ones\. Read them from its model"
    ):
        opened.recipe(replace(opened.budget("4b"), weights=None))
