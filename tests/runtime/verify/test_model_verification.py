"""Verification of models: what a replay finds that digests cannot, and what it says where there is none."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from safetensors.numpy import load_file, save_file

from changed_bundle import only_small, reseal
from elastic_runtime.format.golden import read_golden, write_golden
from elastic_runtime.verify.bundle_verification import verify_bundle


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
