"""Verification: every flipped bit of every file is found and named; a bundle verifies and runs wherever it lies."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from elastic_runtime.bundle import Bundle
from elastic_runtime.digest import file_digest
from elastic_runtime.errors import InputError
from elastic_runtime.golden import Golden, read_golden, write_golden
from elastic_runtime.manifest import FileEntry, Manifest
from elastic_runtime.manifest_reader import read_manifest
from elastic_runtime.open_onnx import open_onnx
from elastic_runtime.replay import BOUNDS, replay
from elastic_runtime.sketch import sketch
from elastic_runtime.verify import verify_bundle

SEED = 8
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from elastic_runtime.run import main
try:
    main()
finally:
    unwanted = ("torch", "elastic_export", "onnx_ir", "transformers")
    loaded = [name for name in sys.modules if name.split(".")[0] in unwanted]
    assert loaded == ["torch"], loaded
"""


@pytest.fixture
def copy(demo_bundle: Path, tmp_path: Path) -> Path:
    """A copy whose files may be changed (the demo's are links to one another)."""
    return Path(shutil.copytree(demo_bundle, tmp_path / "copy"))


def _elastic_run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _reseal(bundle: Path, **changes: object) -> None:
    """Write the manifest anew for files that were changed on purpose."""
    manifest: Manifest = replace(read_manifest(bundle), **changes)
    files = tuple(FileEntry(entry.path, *file_digest(bundle / entry.path)) for entry in manifest.files)
    (bundle / "manifest.json").write_text(replace(manifest, files=files).to_json(), "utf-8")


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
    with pytest.raises(InputError, match=r"expected a bundle with a manifest\.json, found No such file"):
        verify_bundle(tmp_path)


def test_a_model_that_computes_something_else_fails_although_its_digests_are_right(copy: Path) -> None:
    """Swap two layers' weights in the recipe, and seal that: only the golden run can tell."""
    path = copy / "small" / "weights.json"
    recipe = json.loads(path.read_text())
    inputs = recipe["inputs"]
    first, second = (f"backbone.layers.{i}.norm.weight" for i in (0, 2))
    inputs[first], inputs[second] = inputs[second], inputs[first]
    path.write_text(json.dumps(recipe))
    _reseal(copy)
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
    _reseal(copy)
    (outcome,) = (o for o in verify_bundle(copy).models if o.failed)
    assert outcome.replay
    assert outcome.replay.logits < 1e-5
    assert outcome.replay.state_name in ("ssm_state.1", "ssm_state.3")


@pytest.mark.parametrize("what", ["logits", "states"])
def test_the_bounds_catch_a_nan_and_a_small_error(demo_bundle: Path, what: str) -> None:
    bundle = Bundle.open(demo_bundle)
    golden = read_golden(bundle.path / "small/golden.safetensors")
    for factor in (1.001, np.nan):
        backend = open_onnx(bundle, bundle.budget("small"), context=256, threads=1)
        states = backend.states
        call = backend.call
        if what == "logits":
            backend.call = lambda *a, call=call, factor=factor: call(*a) * np.float32(factor)  # type: ignore[method-assign]
        else:
            backend.states = lambda states=states, factor=factor: {  # type: ignore[method-assign]
                n: s * np.float32(factor) if n == "conv_state.1" else s for n, s in states().items()
            }
        found = replay(backend, golden, BOUNDS["twin"])
        assert not found.passed
        assert (found.logits > 1e-4 or np.isnan(found.logits)) == (what == "logits")


def test_a_nan_in_one_call_is_not_lost_among_numbers(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    golden = read_golden(bundle.path / "small/golden.safetensors")
    backend = open_onnx(bundle, bundle.budget("small"), context=256, threads=1)
    call, calls = backend.call, list[int]()

    def spoiled(*arguments: object) -> object:
        calls.append(0)
        logits = call(*arguments).copy()  # type: ignore[arg-type]
        return logits * np.nan if len(calls) == 4 else logits

    backend.call = spoiled  # type: ignore[assignment,method-assign]
    found = replay(backend, golden, BOUNDS["twin"])
    assert not found.passed
    assert found.call == 3


def test_a_batch_is_replayed_row_by_row_where_the_backend_takes_one(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    golden = read_golden(bundle.path / "small/golden.safetensors")
    backend = open_onnx(bundle, bundle.budget("small"), context=256, batch=1, threads=1)
    assert len(golden.ids) == 2
    assert replay(backend, golden, BOUNDS["twin"]).passed


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


def test_no_golden_run_is_not_run_and_no_failure(copy: Path) -> None:
    manifest = read_manifest(copy)
    budgets = tuple(replace(budget, golden=None) for budget in manifest.budgets)
    _reseal(copy, budgets=budgets)
    result = verify_bundle(copy)
    assert result.passed
    assert all("exported with --no-verify" in o.not_run for o in (*result.models, *result.engines))


def test_golden_runs_beyond_the_backend_are_refused(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    golden = read_golden(bundle.path / "small/golden.safetensors")
    backend = open_onnx(bundle, bundle.budget("small"), context=20)
    from elastic_runtime.errors import BuildError

    with pytest.raises(BuildError, match="golden run: expected at most 20 tokens of context and 20 a call"):
        replay(backend, golden, BOUNDS["twin"])
    other = Golden(**{**golden.__dict__, "states": {"x": sketch(np.ones(3))}})
    with pytest.raises(BuildError, match="golden run: expected the states of the model, found differing"):
        replay(open_onnx(bundle, bundle.budget("small"), context=256, threads=1), other, BOUNDS["twin"])
