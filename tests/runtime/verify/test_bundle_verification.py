"""Verification: every flipped bit of every file is found and named; a bundle verifies and runs wherever it lies."""

from __future__ import annotations

import datetime
import json
import random
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from changed_bundle import only_small, reseal
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import InputError, UnavailableError
from elastic_runtime.format.golden import read_golden, write_golden
from elastic_runtime.format.manifest_reader import read_manifest
from elastic_runtime.ort.open_onnx import open_onnx
from elastic_runtime.tensorrt.engine_cache import cache_folder, remembered
from elastic_runtime.verify.bundle_verification import verify_bundle
from elastic_runtime.verify.verified import Outcome, Verified

SEED = 8
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from elastic_runtime.cli.run import main
try:
    main()
finally:
    unwanted = ("torch", "elastic_export", "onnx_ir", "transformers")
    loaded = [name for name in sys.modules if name.split(".")[0] in unwanted]
    assert loaded == ["torch"], loaded
"""


def _elastic_run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_demo_verifies_and_says_what_was_not_run(demo_bundle: Path) -> None:
    result = verify_bundle(demo_bundle)
    assert result.passed
    assert [outcome.file for outcome in result.models] == [f"{n}/model.onnx" for n in ("large", "medium", "small")]
    assert all(o.replay and 0 < o.replay.logits < 1e-5 and 0 < o.replay.state < 1e-5 for o in result.models)
    if any(outcome.replay for outcome in result.engines):
        pytest.skip("a card of the engines' class is here")
    assert {o.not_run for o in result.engines} <= {
        "no NVIDIA card here; it needs one of compute capability 12.0",
        *(o.not_run for o in result.engines if "has compute capability" in o.not_run),
    }
    assert "small/rtx5080.engine: not run: " in result.text()
    said = json.loads(result.to_json())
    assert said["passed"] is True
    assert said["models"][0]["replay"]["logits"] == result.models[0].replay.logits  # type: ignore[union-attr]


def test_a_required_engine_that_was_not_run_fails(demo_bundle: Path) -> None:
    result = verify_bundle(demo_bundle, require_engine=True)
    if all(outcome.replay for outcome in result.engines):
        pytest.skip("a card of the engines' class is here")
    assert not result.passed
    assert "an engine was required to run and was not" in result.text()
    assert result.text().endswith("NOT VERIFIED")


def test_a_required_engine_that_the_bundle_does_not_have_is_said() -> None:
    lines = ["b: 3 files, none damaged", "  an engine was required, the bundle has none", "NOT VERIFIED"]
    assert Verified("b", 3, (), (), require_engine=True).text().splitlines() == lines
    assert "required" not in Verified("b", 3, (), ()).text()
    assert "required" not in Verified("b", 3, ("x is damaged",), (), require_engine=True).text()  # none was looked at


def test_every_flipped_bit_in_any_file_is_found_and_named(copy: Path) -> None:
    draw = random.Random(SEED)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    assert len(files) > 20
    for file in files:
        for _ in range(3):
            at, bit = draw.randrange(file.stat().st_size), draw.randrange(8)
            _flip(file, at, bit)
            result = verify_bundle(copy)
            assert not result.passed, f"bit {bit} of byte {at} of {file}"
            assert len(result.damaged) == 1
            assert str(file.relative_to(copy)) in result.damaged[0]
            _flip(file, at, bit)
    assert not verify_bundle(copy).damaged


def _flip(file: Path, at: int, bit: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 1 << bit]))


def test_no_byte_of_the_manifest_may_change(copy: Path) -> None:
    """It is what everything else is checked against, so nothing but its own seal protects it."""
    path, draw = copy / "manifest.json", random.Random(SEED)
    data = path.read_bytes()
    for at in draw.sample(range(len(data)), 300):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :])
        assert not verify_bundle(copy).passed, at


def test_a_missing_and_an_added_file_are_named(copy: Path) -> None:
    (copy / "small" / "golden.safetensors").unlink()
    (copy / "note.txt").write_text("hello")
    result = verify_bundle(copy)
    assert not result.passed
    assert "small/golden.safetensors: expected a file of the bundle, found none" in result.text()
    assert "not in the manifest, ignored: note.txt" in result.text()


def test_damage_ends_the_command_with_1(copy: Path) -> None:
    _flip(copy / "weights" / "model-00001-of-00002.safetensors", 5000, 3)
    done = _elastic_run(copy, "--verify")
    assert done.returncode == 1
    assert "model-00001-of-00002.safetensors: expected sha256" in done.stdout
    assert done.stdout.endswith("NOT VERIFIED\n")
    assert "Traceback" not in done.stderr


def test_no_bundle_is_the_users_fault(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a bundle, found no manifest\.json in it\."):
        verify_bundle(tmp_path)


def test_a_model_that_computes_something_else_fails_although_its_digests_are_right(copy: Path) -> None:
    """Swap two layers' weights in the recipe, and seal that: only the golden run can tell."""
    _swap_norms(copy)
    reseal(copy)
    result = verify_bundle(copy)
    assert not result.damaged
    assert [o.file for o in result.models if o.failed] == ["small/model.onnx"]
    assert "small/model.onnx: FAILED: logits off by" in result.text()


def test_a_wrong_state_fails_although_all_logits_are_right(copy: Path) -> None:
    path = copy / "small" / "golden.safetensors"
    golden = read_golden(path)
    states = dict(golden.states)
    states["ssm_state.1"], states["ssm_state.3"] = states["ssm_state.3"], states["ssm_state.1"]
    path.unlink()
    write_golden(path, replace(golden, states=states))
    reseal(copy)
    (outcome,) = (o for o in verify_bundle(copy).models if o.failed)
    assert outcome.replay
    assert outcome.replay.logits < 1e-5
    assert outcome.replay.state_name in ("ssm_state.1", "ssm_state.3")


def test_moved_as_a_tar_it_verifies_and_runs_without_original_and_checkpoint(copy: Path, tmp_path: Path) -> None:
    archive, elsewhere = tmp_path / "bundle.tar", tmp_path / "else where" / "ü"
    with tarfile.open(archive, "w") as tar:
        tar.add(copy, "bundle")
    shutil.rmtree(copy)
    with tarfile.open(archive) as tar:
        tar.extractall(elsewhere, filter="data")
    verified = _elastic_run(elsewhere / "bundle", "--verify")
    assert (verified.returncode, verified.stdout.splitlines()[-1]) == (0, "verified"), verified.stderr
    ran = _elastic_run(elsewhere / "bundle", "--ids", "1,2,3", "--max-new", 4)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.split()) == 4


def test_no_golden_run_is_not_run_and_not_called_verified(copy: Path) -> None:
    manifest = read_manifest(copy)
    budgets = tuple(replace(budget, golden=None) for budget in manifest.budgets)
    reseal(copy, budgets=budgets)
    result = verify_bundle(copy)
    assert result.passed
    assert not result.replayed
    assert all("exported with --no-verify" in o.not_run for o in (*result.models, *result.engines))
    assert result.text().splitlines()[-1] == "digests hold; nothing was replayed"
    assert json.loads(result.to_json())["replayed"] is False


def test_external_weights_without_their_folder_are_not_run(copy: Path, tmp_path: Path) -> None:
    manifest = read_manifest(copy)
    shards = tuple(entry for entry in manifest.files if entry.path.startswith("weights/"))
    outside = tuple(replace(entry, path=entry.path.removeprefix("weights/")) for entry in shards)
    reseal(copy, files=tuple(e for e in manifest.files if e not in shards), external_weights=outside)
    hub = shutil.move(copy / "weights", tmp_path / "hub")
    result = verify_bundle(copy)
    assert {o.not_run for o in result.models} == {"the bundle does not hold its weights; name their folder"}
    assert result.text().endswith("\ndigests hold; nothing was replayed")
    result = verify_bundle(copy, external=Path(hub))
    assert (result.passed, result.replayed) == (True, True)


def test_a_folder_of_weights_for_a_bundle_that_holds_them_is_refused(demo_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds its weights, found one"):
        verify_bundle(demo_bundle, external=tmp_path)


def _unknown_op(bundle: Path) -> None:
    path = bundle / "small/model.onnx"
    model = onnx.load(path)
    next(node for node in model.graph.node if node.op_type == "Gather").op_type = "Nonsense"
    onnx.save(model, path)


def _garbage(bundle: Path) -> None:
    (bundle / "small/model.onnx").write_bytes(b"\xff\xfe garbage")


def _other_format(bundle: Path) -> None:
    (bundle / "small/model.onnx").write_bytes(b"")


def _absurd_call(bundle: Path) -> None:
    path = bundle / "small/golden.safetensors"
    tensors = {name: array.copy() for name, array in load_file(path).items()}
    tensors["tokens"][1] = 2**40
    save_file(tensors, path)


def _foreign_ids(bundle: Path) -> None:
    path = bundle / "small/golden.safetensors"
    golden = read_golden(path)
    path.unlink()  # its arrays are the file's pages
    write_golden(path, replace(golden, ids=golden.ids + 100_000))


def _no_golden_run(bundle: Path) -> None:
    (bundle / "small/golden.safetensors").write_bytes(b"no tensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_unknown_op, r"small/model\.onnx: FAILED: .*Nonsense"),
        (
            _garbage,
            r"model\.onnx: FAILED: .*model\.onnx: expected a model that onnxruntime runs, found DecodeError",
        ),
        (_other_format, r"small/model\.onnx: FAILED: .*expected"),
        (
            _absurd_call,
            r"FAILED: .*golden\.safetensors: call 1: expected T of at most 87, the tokens of a row, found 1",
        ),
        (_foreign_ids, r"FAILED: golden run: expected ids from 0 to 263, found others"),
        (_no_golden_run, r"FAILED: .*golden\.safetensors, header length: expected"),
    ],
)
def test_a_model_that_cannot_be_replayed_fails_although_its_digests_are_right(
    copy: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(copy)
    only_small(copy)
    result = verify_bundle(copy)
    assert not result.damaged
    assert not result.passed
    assert re.search(message, result.text()), result.text()
    assert result.text().endswith("\nNOT VERIFIED")


def test_a_replay_that_fails_as_nobody_foresaw_is_a_failed_model(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("x")

    only_small(copy)
    monkeypatch.setattr("elastic_runtime.verify.bundle_verification.replay_by_layer", fail)
    result = verify_bundle(copy)
    assert not result.passed
    assert "small/model.onnx: FAILED: KeyError: 'x'" in result.text()


def test_a_machine_without_memory_or_packages_does_not_verify(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_small(copy)
    with monkeypatch.context() as patch:
        patch.setattr("elastic_runtime.ort.layered_twin.free_ram", lambda: 0)
        result = verify_bundle(copy)
    (outcome,) = result.models
    assert outcome.failed
    assert "small/model.onnx: NOT VERIFIED, it cannot run here: budget 'small' on the CPU: expected 0" in result.text()
    assert "End other programs, or verify it on a machine with more memory." in result.text()
    assert result.text().endswith("\nNOT VERIFIED")
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = verify_bundle(copy)
    assert not result.passed
    assert "expected the packages onnx and onnxruntime" in result.models[0].unavailable


def test_it_needs_the_memory_of_a_layer_and_not_of_the_model(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A twin of the whole file would have no room."""
    only_small(copy)
    monkeypatch.setattr("elastic_runtime.ort.open_onnx.free_ram", lambda: 0)
    assert verify_bundle(copy).replayed


def _branch_first(bundle: Path) -> None:
    """A file as somebody else may write it: right, and not in the way in which ours are."""
    path = bundle / "small/model.onnx"
    model = onnx.load(path)
    total = [node for node in model.graph.node if node.op_type == "Add"][-1]
    total.input[:] = reversed(total.input)
    onnx.save(model, path)


def test_a_file_without_layers_of_ours_is_replayed_whole_and_that_is_said(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _branch_first(copy)
    only_small(copy)
    said = list[str]()
    result = verify_bundle(copy, say=said.append)
    assert (result.passed, result.replayed) == (True, True)
    [line] = [text for text in said if "replayed whole" in text]
    assert line.startswith("small: small/model.onnx: expected a file to cut into its layers, found model.onnx")
    monkeypatch.setattr("elastic_runtime.ort.open_onnx.free_ram", lambda: 0)
    result = verify_bundle(copy)
    assert "expected 0.3 GiB of free memory (float32 arithmetic, weights as stored)" in result.text()


def test_a_wrong_file_without_layers_of_ours_fails(copy: Path) -> None:
    _branch_first(copy)
    _swap_norms(copy)
    only_small(copy)
    assert "small/model.onnx: FAILED: logits off by" in verify_bundle(copy).text()


def _swap_norms(bundle: Path) -> None:
    path = bundle / "small/weights.json"
    recipe = json.loads(path.read_text())
    inputs = recipe["inputs"]
    first, second = (f"backbone.layers.{i}.norm.weight" for i in (0, 2))
    inputs[first], inputs[second] = inputs[second], inputs[first]
    path.write_text(json.dumps(recipe))


def test_the_files_of_two_budgets_swapped_fail(copy: Path) -> None:
    for name in ("model.onnx", "weights.json"):
        first, second = copy / "small" / name, copy / "medium" / name
        first.rename(copy / "kept")
        second.rename(first)
        (copy / "kept").rename(second)
        reseal(copy)
        assert {o.file for o in verify_bundle(copy).models if o.failed} == {"small/model.onnx", "medium/model.onnx"}


@pytest.fixture
def card(copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A machine with a card whose engines are played by the twins; what they were opened with is noted."""
    noted: dict[str, Any] = {"factor": 1.0, "refusal": ()}

    def open_engine(bundle: Bundle, budget: Any, engine: Any, wishes: Any, card: Card, *, say: Any) -> Any:
        noted["plugins"], noted["batch"] = wishes.plugin_folder, wishes.batch
        if engine.file in noted["refusal"]:
            raise UnavailableError(engine.file, expected="a library", found="none")
        backend = open_onnx(bundle, budget, context=512, max_tokens=64, threads=1)
        call = backend.call
        backend.call = lambda *a: call(*a) * np.float32(noted["factor"])  # type: ignore[method-assign]
        return backend

    only_small(copy)
    found = Card("GeForce RTX 5080", "12.0", 16 << 30, 15 << 30)
    monkeypatch.setattr("elastic_runtime.verify.bundle_verification.find_card", lambda: found)
    monkeypatch.setattr("elastic_runtime.tensorrt.open_tensorrt.open_engine", open_engine)
    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path / "cache"))
    return noted


def test_an_engine_verified_on_a_card_says_which_and_when_and_is_remembered(
    copy: Path, card: dict[str, Any], tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    result = verify_bundle(copy, plugins=tmp_path)
    assert result.passed
    assert (card["plugins"], card["batch"]) == (tmp_path, 2)
    (outcome,) = result.engines
    assert outcome.status is not None
    today = datetime.datetime.now(datetime.UTC).date()
    assert abs((datetime.date.fromisoformat(str(outcome.status.date)) - today).days) <= 1
    line = f"small/rtx5080.engine: ok on GeForce RTX 5080, {outcome.status.date}: logits off by"
    assert line in result.text()
    manifest = read_manifest(copy)
    engine = manifest.budgets[0].engines[0]
    folder = cache_folder(None)
    assert folder == tmp_path / "cache" / "kernels"
    assert remembered(folder, manifest, engine, "GeForce RTX 5080") == outcome.status
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    card["factor"] = 1.2  # the same engine on a driver that spoils it
    result = verify_bundle(copy)
    assert not result.passed
    assert "small/rtx5080.engine: FAILED: logits off by" in result.text()
    assert remembered(folder, manifest, engine, "GeForce RTX 5080") is None


def test_an_engine_that_this_machine_cannot_run_is_listed(copy: Path, card: dict[str, Any]) -> None:
    card["refusal"] = ("small/rtx5080.engine",)
    result = verify_bundle(copy)
    assert result.passed
    assert "small/rtx5080.engine: not run: small/rtx5080.engine: expected a library, found none." in result.text()
    assert not verify_bundle(copy, require_engine=True).passed


def _with_more_engines(bundle: Path, *more: dict[str, Any]) -> None:
    """As many engines more of the small budget, unlike its first in what is named; their files are its copies."""
    manifest = read_manifest(bundle)
    (budget,) = manifest.budgets
    first = budget.engines[0]
    for changes in more:
        shutil.copyfile(bundle / first.file, bundle / changes["file"])
    engines = (first, *(replace(first, **changes) for changes in more))
    files = (*manifest.files, *(replace(manifest.files[0], path=changes["file"]) for changes in more))
    reseal(bundle, budgets=(replace(budget, engines=engines),), files=files)


def test_of_engines_side_by_side_one_that_ran_is_enough() -> None:
    native, idle = Outcome("native"), Outcome("native", not_run="no memory")
    plugin = Outcome("plugin", not_run="no library")
    for engines, passed in (((native, plugin), True), ((idle, plugin), False)):
        result = Verified("b", 3, (), (), (), engines, require_engine=True, alternatives=(("native", "plugin"),))
        assert result.passed == passed
        assert ("  an engine was required to run and was not: native or plugin" in result.text().splitlines()) != passed


def test_an_engine_of_each_context_and_target_for_the_card_is_required_and_none_of_another_card(
    copy: Path, card: dict[str, Any]
) -> None:
    other, short = "small/other.engine", "small/short.engine"
    _with_more_engines(
        copy,
        {"file": other, "target": "rtx4090", "compute_capabilities": ("8.9",)},
        {"file": short, "max_context": 512},
    )
    result = verify_bundle(copy, require_engine=True)
    assert f"{other}: not run" in result.text()
    assert result.passed
    card["refusal"] = (short,)
    result = verify_bundle(copy, require_engine=True)
    assert f"  an engine was required to run and was not: {short}" in result.text().splitlines()
    assert not result.passed
