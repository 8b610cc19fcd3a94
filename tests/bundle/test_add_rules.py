from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from elastic_export.bundle.add_rules import check_same
from elastic_export.bundle.writer import BundleWriter
from elastic_export.weights.sliced import INITIALISED
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from elastic_runtime.format.manifest import FileEntry


def engines(bundle: Bundle) -> dict[str, list[tuple[str, int, str]]]:
    return {b.name: [(e.target, e.max_context, e.file) for e in b.engines] for b in bundle.budgets}


def test_budgets_and_targets_of_both_exports(tmp_path: Path, export: Callable) -> None:
    out = tmp_path / "out"
    export(out, {"big": [("rtx5080", 1024)]})
    export(out, {"small": [("rtx5080", 1024)]}, add=True)
    export(out, {"big": [("rtx4090", 1024)]}, add=True)
    bundle = Bundle.open(out, "digests")
    assert engines(bundle) == {
        "big": [("rtx4090", 1024, "big/rtx4090.engine"), ("rtx5080", 1024, "big/rtx5080.engine")],
        "small": [("rtx5080", 1024, "small/rtx5080.engine")],
    }


def test_an_engine_made_again_replaces_the_old_one(tmp_path: Path, export: Callable) -> None:
    out = tmp_path / "out"
    export(out, {"big": [("rtx5080", 1024)]})
    export(out, {"big": [("rtx5080", 1024)]}, add=True)
    assert engines(Bundle.open(out)) == {"big": [("rtx5080", 1024, "big/rtx5080.engine")]}


def test_another_context_under_the_same_file_name_moves_the_kept_engine(tmp_path: Path, export: Callable) -> None:
    out = tmp_path / "out"
    export(out, {"big": [("rtx5080", 1024)]})
    export(out, {"big": [("rtx5080", 2048)]}, add=True)
    bundle = Bundle.open(out, "digests")
    assert engines(bundle)["big"] == [
        ("rtx5080", 1024, "big/rtx5080.1024.engine"),
        ("rtx5080", 2048, "big/rtx5080.engine"),
    ]
    assert (out / "big/rtx5080.1024.engine").read_text() == "engine for rtx5080 at 1024 "


def test_equal_contents_give_equal_manifests_however_they_came_about(tmp_path: Path, export: Callable) -> None:
    big, small = [("rtx5080", 1024), ("rtx4090", 2048)], [("rtx5090", 512)]
    export(tmp_path / "once", {"small": small, "big": big})
    export(tmp_path / "turned", {"big": big[::-1], "small": small})
    export(tmp_path / "parts", {"big": big[1:]})
    export(tmp_path / "parts", {"small": small}, add=True)
    last = export(tmp_path / "parts", {"big": big[:1]}, add=True)
    texts = {(tmp_path / name / "manifest.json").read_text() for name in ("once", "turned", "parts")}
    assert len(texts) == 1
    assert last.options == {
        "budgets": ("big", "small"),
        "targets": ("rtx4090", "rtx5080", "rtx5090"),
        "max_contexts": (512, 1024, 2048),
        "max_batch": 1,
    }


def test_adding_to_nothing_is_an_export(tmp_path: Path, export: Callable) -> None:
    export(tmp_path / "out", {"big": []}, add=True)
    assert engines(Bundle.open(tmp_path / "out")) == {"big": []}


def test_another_checkpoint_is_refused_and_the_bundle_stays(tmp_path: Path, export: Callable, tree: Callable) -> None:
    out = tmp_path / "out"
    export(out, {"big": [("rtx5080", 1024)]})
    before = tree(out)
    with pytest.raises(InputError, match="as in the bundle, parent, found parent, whose weights differ"):
        export(out, {"small": []}, add=True, fingerprint="0" * 64)
    assert tree(out) == before


def test_a_shard_with_other_bytes_is_refused_whatever_the_fingerprint(
    tmp_path: Path, export: Callable, shard: Path
) -> None:
    export(tmp_path / "out", {"big": []})
    shard.resolve().unlink()
    shard.resolve().write_bytes(b"WEIGHTS " * 1000)
    with pytest.raises(InputError, match=r"--add, weights/model\.safetensors"):
        export(tmp_path / "out", {"small": []}, add=True)


def test_a_shard_outside_the_bundle_with_other_bytes_is_refused_too(tmp_path: Path, export: Callable) -> None:
    inside = export(tmp_path / "out", {"big": []})
    shards = (FileEntry("model.safetensors", 8, "a" * 64),)
    old = replace(inside, files=(), external_weights=shards, options={"external_weights": True})
    check_same(old, old)
    changed = replace(old, external_weights=(replace(shards[0], sha256="b" * 64),))
    with pytest.raises(InputError, match=r"--add, model\.safetensors: expected as in the bundle, sha256 aaaa"):
        check_same(old, changed)
    check_same(old, replace(old, external_weights=(replace(shards[0], path="other.safetensors"),)))


def test_engines_of_another_graph_are_not_kept_beside_a_new_one(tmp_path: Path, export: Callable) -> None:
    export(tmp_path / "out", {"big": [("rtx5080", 1024)]})
    with pytest.raises(InputError, match=r"budget big: expected as in the bundle, the big/model\.onnx of its other"):
        export(tmp_path / "out", {"big": [("rtx4090", 1024)]}, add=True, text="changed")


def test_what_cannot_be_added_is_refused_before_anything_is_built(
    tmp_path: Path, export: Callable, tree: Callable
) -> None:
    old = export(tmp_path / "out", {"big": []})
    before = tree(tmp_path / "out")
    others = (replace(old, precision="fp16"), replace(old, weight_mode="sliced"), replace(old, logits="all"))
    for other in others:
        with BundleWriter(tmp_path / "out", add=True) as writer, pytest.raises(InputError, match="--add, "):
            writer.check_addable(other)
        with BundleWriter(tmp_path / "out") as writer:
            writer.check_addable(other)  # a new export owes the old one nothing
    with BundleWriter(tmp_path / "out", add=True) as writer:
        writer.check_addable(old)
    assert tree(tmp_path / "out") == before


def test_engines_stay_beside_a_file_with_weights_that_the_older_bundle_lacks(tmp_path: Path, export: Callable) -> None:
    """Bundles of older releases have no such file, and no engine is built from it."""

    def initialise(writer: BundleWriter) -> None:
        (writer.folder("small") / INITIALISED).write_text("onnx")

    export(tmp_path / "out", {"small": [("rtx5080", 1024)]})
    manifest = export(tmp_path / "out", {"small": [("rtx5090", 1024)]}, add=True, before_finish=initialise)
    assert {engine.target for engine in manifest.budget("small").engines} == {"rtx5080", "rtx5090"}
    assert manifest.file(f"small/{INITIALISED}")
