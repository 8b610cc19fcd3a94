"""Embedded weights: the same model, its weights beside the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_export.emit import EmittedModel, emit_model
from elastic_export.emit.embed import embed_weights, read_weight
from elastic_export.graph.facts import TensorSlice, Weight
from elastic_export.layers.kept import slice_array, tensor_runs
from elastic_export.runs import full_runs
from weight_slices import slices_of


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
        embed=slices_of(held),
    )


def test_embedded_model_gives_the_same_bits(
    emitted: Any, compiled: Any, session: Callable[..., Any], tmp_path: Path
) -> None:
    weights = {
        name: slice_array(compiled.weights[name], runs)
        for name, runs in tensor_runs(compiled.arch, compiled.budget).items()
    }
    before = session(emitted.path).run(None, feeds(emitted, compiled.arch) | weights)
    model = embedded(compiled, tmp_path / "embedded.onnx")
    after = session(model.path).run(None, feeds(model, compiled.arch))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(after, before, strict=True))
    assert (model.weights, model.weight_sources) == (emitted.weights, emitted.weight_sources)


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
    for name, runs in tensor_runs(compiled.arch, compiled.budget).items():
        assert loaded[name].tobytes() == slice_array(rounded[name], runs).tobytes(), name


@given(st.data())
def test_a_weight_of_several_tensors_is_numpys_concatenation(data: st.DataObject) -> None:
    axis, size = data.draw(st.integers(0, 1)), data.draw(st.integers(1, 3))
    tensors, parts, slices = dict[str, Any](), list[TensorSlice](), list[Any]()
    for name in ("q", "k", "v")[: data.draw(st.integers(1, 3))]:
        shape = [size, size]
        shape[axis] = data.draw(st.integers(1, 5))
        kept = [np.arange(n) for n in shape]
        kept[axis] = np.array(sorted(data.draw(st.sets(st.integers(0, shape[axis] - 1), min_size=1))))
        tensors[name] = np.random.default_rng(len(tensors)).normal(size=shape).astype(ml_dtypes.bfloat16)
        runs = tuple(tuple((int(index), 1) for index in one) for one in kept)
        parts.append(TensorSlice(name, tuple(shape), runs))
        slices.append(tensors[name][np.ix_(*kept)])
    weight = Weight(tuple(parts), axis)
    found = read_weight(weight, slices_of(tensors))
    assert found.dtype == ml_dtypes.bfloat16
    assert weight.shape == found.shape
    assert found.tobytes() == np.concatenate(slices, axis).tobytes()


def test_an_input_of_another_name_than_its_tensors_is_embedded() -> None:
    text = """<ir_version: 11, opset_import: ["": 24]>
    g (float[B,2] x, float[2,3] merged) => (float[B,3] logits) { logits = MatMul(x, merged) }"""
    model = ir.from_onnx_text(text)
    tensors = {"a": np.arange(2, dtype=np.float32).reshape(2, 1), "b": np.arange(4, dtype=np.float32).reshape(2, 2)}
    parts = tuple(TensorSlice(name, t.shape, full_runs(t.shape)) for name, t in tensors.items())
    embed_weights(model, {"merged": Weight(parts, 1)}, slices_of(tensors))
    assert [value.name for value in model.graph.inputs] == ["x"]
    held = model.graph.initializers["merged"].const_value
    assert held is not None
    assert (held.name, held.numpy().tolist()) == ("merged", [[0, 0, 1], [1, 2, 3]])
