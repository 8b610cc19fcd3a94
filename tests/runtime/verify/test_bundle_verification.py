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

import pytest

from changed_bundle import reseal
from elastic_runtime.errors import InputError
from elastic_runtime.format.manifest_reader import read_manifest
from elastic_runtime.verify import bundle_verification
from elastic_runtime.verify.bundle_verification import verify_bundle

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


def test_ctrl_c_is_no_fault_of_a_file(demo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Ctrl-C in a module that is being imported pybind11 makes an error like any other."""

    def interrupted(*_: object) -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(bundle_verification, "open_layered", interrupted)
    with pytest.raises(ImportError, match="initialization failed"):
        verify_bundle(demo_bundle)
