"""Bundles made apart become one: the same as if it had been made at once, or a refusal that names both."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from elastic_export.bundle.merge import merge_bundles
from elastic_export.bundle.writer import BundleWriter
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from elastic_runtime.format.digest import file_digest
from elastic_runtime.format.manifest import FileEntry
from elastic_runtime.format.manifest_reader import NAME, DamageError, read_manifest

WHOLE = {
    "big": [("rtx4090", 2048), ("rtx5080", 1024), ("rtx5090", 512)],
    "small": [("rtx4090", 2048), ("rtx5080", 1024)],
}


@pytest.mark.parametrize("seed", range(8))
def test_any_parts_in_any_order_give_the_bundle_that_one_export_gives(
    tmp_path: Path, export: Callable, tree: Callable, seed: int
) -> None:
    rng = random.Random(seed)
    parts: list[dict[str, list[tuple[str, int]]]] = [{} for _ in range(rng.randint(1, 4))]
    for budget, engines in WHOLE.items():
        for engine in engines:
            for part in rng.sample(parts, rng.randint(1, len(parts))):  # some are in several of them
                part.setdefault(budget, []).append(engine)
    folders = [tmp_path / f"part{number}" for number in range(len(parts))]
    for folder, part in zip(folders, parts, strict=True):
        export(folder, part)
    rng.shuffle(folders)
    export(tmp_path / "once", WHOLE)
    output, _ = merge_bundles(folders, tmp_path / "joined")
    assert tree(output) == tree(tmp_path / "once")
    Bundle.open(output, "digests")


def test_the_parts_stay_as_they_are(tmp_path: Path, export: Callable, tree: Callable) -> None:
    export(tmp_path / "a", {"big": WHOLE["big"]})
    export(tmp_path / "b", {"small": WHOLE["small"]})
    before = tree(tmp_path / "a"), tree(tmp_path / "b")
    merge_bundles([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert (tree(tmp_path / "a"), tree(tmp_path / "b")) == before


def test_the_order_of_the_names_is_none_of_the_manifest(tmp_path: Path, export: Callable, tree: Callable) -> None:
    for name, options in (("a", {"verify": True}), ("b", {"verify": False})):
        export(tmp_path / name, {"big": WHOLE["big"]})
        manifest = read_manifest(tmp_path / name)
        (tmp_path / name / NAME).write_text(replace(manifest, options=dict(manifest.options) | options).to_json())
    one, _ = merge_bundles([tmp_path / "a", tmp_path / "b"], tmp_path / "one")
    other, _ = merge_bundles([tmp_path / "b", tmp_path / "a"], tmp_path / "other")
    assert tree(one) == tree(other)


@pytest.mark.parametrize("modes", [["plugin", "native"], ["native"]])
def test_engines_of_another_ops_mode_stand_beside(tmp_path: Path, export: Callable, modes: list[str]) -> None:
    """A part with both modes, or with native engines alone, and one with plugin engines."""
    export(tmp_path / "a", {"big": [("rtx5080", 1024)]})
    export(tmp_path / "b", {"big": [("rtx5080", 1024)]})
    manifest = read_manifest(tmp_path / "b")
    [budget], native = manifest.budgets, "big/rtx5080.native.engine"
    [engine] = budget.engines
    (tmp_path / "b" / native).write_text("native")
    entry = FileEntry(native, *file_digest(tmp_path / "b" / native))
    engines = {"plugin": engine, "native": replace(engine, ops="native", plugin=None, file=native)}
    files = tuple(f for f in manifest.files if f.path != engine.file or "plugin" in modes)
    budget = replace(budget, engines=tuple(engines[mode] for mode in modes))
    changed = replace(manifest, budgets=(budget,), files=(*files, entry))
    (tmp_path / "b" / NAME).write_text(changed.to_json())
    _, joined = merge_bundles([tmp_path / "b", tmp_path / "a"], tmp_path / "out")
    found = {e.ops: (tmp_path / "out" / e.file).read_text() for e in joined.budgets[0].engines}
    assert found == {"plugin": "engine for rtx5080 at 1024 ", "native": "native"}
    assert len(joined.budgets[0].engines) == 2


def test_an_engine_of_another_context_under_the_same_name_gets_its_context_into_it(
    tmp_path: Path, export: Callable
) -> None:
    export(tmp_path / "a", {"big": [("rtx5080", 1024)]})
    export(tmp_path / "b", {"big": [("rtx5080", 2048)]})
    _, manifest = merge_bundles([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    for engine in Bundle.open(tmp_path / "out", "digests").budgets[0].engines:
        assert (tmp_path / "out" / engine.file).read_text() == f"engine for rtx5080 at {engine.max_context} "
    assert manifest.options["max_contexts"] == (1024, 2048)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"producer": "elastic-export 0.2.0"}, "producer: expected as in {a}, elastic-export 0.1.0, found elastic-exp"),
        ({"versions": {"tensorrt-rtx": "1.7.2"}}, "tensorrt-rtx: expected as in {a}, 1.7.1, found 1.7.2. Export both"),
        ({"versions": {"tensorrt-rtx": "1.7.1", "torch": "3"}}, "torch: expected as in {a}, not installed, found 3"),
        ({"rules": ("another",)}, "rules: expected as in {a}, the same, found others"),
        ({"demo": True}, "demo: expected as in {a}, False, found True. Merge bundles of one export only"),
        ({"precision": "fp16"}, "precision: expected as in {a}, bf16, found fp16"),
        ({"weight_mode": "sliced"}, "weight_mode: expected as in {a}, shared, found sliced"),
        ({"logits": "all"}, "logits: expected as in {a}, last, found all"),
        (
            {"options": {"external_weights": True}},
            "--external-weights: expected as in {a}, shards in the bundle, found",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bundles_of_other_exports_are_refused_by_name(
    tmp_path: Path, export: Callable, change: dict, expected: str
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        export(folder, {"big": []})
    changed = replace(read_manifest(folders[1]), **change)
    (folders[1] / NAME).write_text(changed.to_json())
    with pytest.raises(InputError) as refused:
        merge_bundles(folders, tmp_path / "out")
    assert f"{tmp_path}/b, {expected.format(a=folders[0])}" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_another_checkpoint_is_refused(tmp_path: Path, export: Callable) -> None:
    export(tmp_path / "a", {"big": []})
    export(tmp_path / "b", {"small": []}, fingerprint="0" * 64)
    with pytest.raises(InputError, match=r", checkpoint: expected as in .*, found parent, whose weights differ"):
        merge_bundles([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_budget_with_other_bytes_is_refused(tmp_path: Path, export: Callable) -> None:
    export(tmp_path / "a", {"big": [("rtx5080", 1024)]})
    export(tmp_path / "b", {"big": [("rtx4090", 1024)]}, text="changed")
    with pytest.raises(InputError, match=r"big/model\.onnx: expected as in .*, sha256 .*, found .*Export both from"):
        merge_bundles([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_an_engine_with_other_bytes_is_refused(tmp_path: Path, export: Callable) -> None:
    def rebuild(writer: BundleWriter) -> None:
        (writer.folder("big") / "rtx5080.engine").write_text("built otherwise")

    export(tmp_path / "a", {"big": [("rtx5080", 1024)]})
    export(tmp_path / "b", {"big": [("rtx5080", 1024)]}, before_finish=rebuild)
    with pytest.raises(InputError, match="budget big, the plugin engine of rtx5080 at 1024: expected as in"):
        merge_bundles([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_a_shard_with_other_bytes_is_refused(tmp_path: Path, export: Callable, shard: Path) -> None:
    export(tmp_path / "a", {"big": []})
    shard.resolve().unlink()
    shard.resolve().write_bytes(b"WEIGHTS " * 1000)
    export(tmp_path / "b", {"small": []})
    with pytest.raises(InputError, match=r"weights/model\.safetensors: expected as in"):
        merge_bundles([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_a_file_beside_the_budgets_with_other_bytes_is_refused(tmp_path: Path, export: Callable) -> None:
    for name in "ab":
        words = f"licence {name}"
        export(tmp_path / name, {"big": []}, before_finish=lambda w, t=words: (w.path / "LICENSE").write_text(t))
    with pytest.raises(InputError, match="LICENSE: expected as in"):
        merge_bundles([tmp_path / "a", tmp_path / "b"], tmp_path / "out")


def test_shards_outside_are_named_once(tmp_path: Path, export: Callable) -> None:
    shards = (FileEntry("model.safetensors", 8, "a" * 64),)
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, budget in zip(folders, WHOLE, strict=True):
        made = export(folder, {budget: []})
        files = tuple(entry for entry in made.files if not entry.path.startswith("weights/"))
        outside = replace(made, files=files, external_weights=shards, options={"external_weights": True})
        (folder / NAME).write_text(outside.to_json())
    _, joined = merge_bundles(folders, tmp_path / "out")
    assert joined.external_weights == shards
    assert read_manifest(tmp_path / "out") == joined


@pytest.mark.parametrize(
    "damage", [lambda f: f.write_bytes(b"X" + f.read_bytes()[1:]), Path.unlink], ids=["byte", "gone"]
)
def test_a_damaged_part_is_named_and_nothing_is_written(tmp_path: Path, export: Callable, damage: Callable) -> None:
    export(tmp_path / "a", {"big": [("rtx5080", 1024)]})
    damage(tmp_path / "a/big/rtx5080.engine")
    with pytest.raises(DamageError, match=r"a/big/rtx5080\.engine: expected"):
        merge_bundles([tmp_path / "a"], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_what_is_no_bundle_is_named(tmp_path: Path, export: Callable) -> None:
    export(tmp_path / "a", {"big": []})
    with pytest.raises(InputError, match="nowhere: expected a bundle, found no such folder"):
        merge_bundles([tmp_path / "a", tmp_path / "nowhere"], tmp_path / "out")


@pytest.mark.parametrize("output", ["a", "a/inside", "."])
def test_a_part_is_never_replaced_or_written_into(
    tmp_path: Path, export: Callable, tree: Callable, output: str
) -> None:
    export(tmp_path / "a", {"big": []})
    before = tree(tmp_path / "a")
    with pytest.raises(InputError, match=f"output .*: expected a folder of its own, found one .*{tmp_path}/a"):
        merge_bundles([tmp_path / "a"], tmp_path / output, force=True)
    assert tree(tmp_path / "a") == before
