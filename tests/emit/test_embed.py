"""Embedded weights: the same model, its weights beside the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

from elastic_export.emit import EmittedModel, emit_model
from elastic_export.layers.kept import slice_array


def feeds(model: Any, arch: Any) -> dict[str, Any]:
    ids = np.random.default_rng(0).integers(0, arch.vocab_size, (2, 5))
    tokens = {"input_ids": ids, "position": np.array([0, 0]), "length": np.array([5, 3])}
    states = {p.name: np.zeros([{"B": 2, "S": 8}.get(d, d) for d in p.shape], np.float32) for p in model.states()}
    return tokens | states


def embedded(compiled: Any, path: Path, precision: str = "fp32", weights: Any = None) -> EmittedModel:
    """The model with its weights inside."""
    held = weights or compiled.weights
    return emit_model(
        compiled.narrowed(precision),
        compiled.budget.architecture(compiled.arch),
        path,
        precision=precision,
        embed=lambda weight: slice_array(held[weight.tensor], weight.runs),
    )


def test_embedded_model_gives_the_same_bits(
    emitted: Any, compiled: Any, session: Callable[..., Any], tmp_path: Path
) -> None:
    weights = {w.tensor: slice_array(compiled.weights[w.tensor], w.runs) for w in emitted.weight_slices}
    before = session(emitted.path).run(None, feeds(emitted, compiled.arch) | weights)
    model = embedded(compiled, tmp_path / "embedded.onnx")
    after = session(model.path).run(None, feeds(model, compiled.arch))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(after, before, strict=True))
    assert (model.weights, model.weight_slices) == (emitted.weights, emitted.weight_slices)


def test_inputs_are_tokens_and_states_and_the_data_lie_beside(compiled: Any, tmp_path: Path) -> None:
    model = embedded(compiled, tmp_path / "model.onnx")
    proto = onnx.load(model.path, load_external_data=False)
    assert [value.name for value in proto.graph.input] == [port.name for port in model.ports]
    outside = [t for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert {entry.value for t in outside for entry in t.external_data if entry.key == "location"} == {"model.onnx.data"}
    assert "backbone.embeddings.weight" in {t.name for t in outside}
    assert model.path.stat().st_size < 100_000
    assert (tmp_path / "model.onnx.data").stat().st_size >= sum(np.prod(t.dims) * 4 for t in outside)


def test_the_file_is_written_once_and_checked_as_it_lies_there(
    compiled: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, seen = onnx.checker.check_model, list[tuple[object, bytes]]()

    def checking(model: Any, full_check: bool = False) -> None:
        seen.append((model, Path(model).read_bytes()))
        assert full_check
        check(model, full_check=full_check)

    monkeypatch.setattr(onnx.checker, "check_model", checking)
    models = [embedded(compiled, tmp_path / "a.onnx"), compiled.emit(tmp_path / "b.onnx")]
    assert seen == [(str(model.path), model.path.read_bytes()) for model in models]


def test_a_matrix_of_another_shape_is_refused(compiled: Any, tmp_path: Path) -> None:
    wrong = dict(compiled.weights) | {"lm_head.weight": compiled.weights["lm_head.weight"][:, :-8]}
    with pytest.raises((ValueError, onnx.checker.ValidationError, IndexError)):
        embedded(compiled, tmp_path / "model.onnx", weights=wrong)


def test_bf16_weights_keep_their_bits(compiled: Any, tmp_path: Path) -> None:
    rounded = {name: w.astype(ml_dtypes.bfloat16) for name, w in compiled.weights.items()}
    model = embedded(compiled, tmp_path / "model.onnx", "bf16", rounded)
    loaded = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(model.path).graph.initializer}
    for weight in model.weight_slices:
        expected = slice_array(rounded[weight.tensor], weight.runs)
        assert loaded[weight.tensor].tobytes() == expected.tobytes(), weight.tensor
