"""Embedded weights: the same model, its weights beside the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from elastic_export.checkpoint.slicing import slice_array
from elastic_export.emit import embed_weights


def feeds(model: Any, arch: Any) -> dict[str, Any]:
    ids = np.random.default_rng(0).integers(0, arch.vocab_size, (2, 5))
    tokens = {"input_ids": ids, "position": np.array([0, 0]), "length": np.array([5, 3])}
    states = {p.name: np.zeros([{"B": 2, "S": 8}.get(d, d) for d in p.shape], np.float32) for p in model.states()}
    return tokens | states


def test_embedded_model_gives_the_same_bits(emitted: Any, compiled: Any, session: Callable[..., Any]) -> None:
    weights = {w.tensor: slice_array(compiled.weights[w.tensor], w.runs) for w in emitted.weight_slices}
    before = session(emitted.path).run(None, feeds(emitted, compiled.arch) | weights)
    embed_weights(emitted, weights.__getitem__)
    after = session(emitted.path).run(None, feeds(emitted, compiled.arch))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(after, before, strict=True))
    onnx.checker.check_model(str(emitted.path), full_check=True)


def test_inputs_are_tokens_and_states_and_the_data_lie_beside(emitted: Any, compiled: Any) -> None:
    embed_weights(emitted, lambda name: slice_array(compiled.weights[name], runs_of(emitted, name)))
    proto = onnx.load(emitted.path, load_external_data=False)
    assert [value.name for value in proto.graph.input] == [port.name for port in emitted.ports]
    outside = [t for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    assert {entry.value for t in outside for entry in t.external_data if entry.key == "location"} == {"model.onnx.data"}
    assert "backbone.embeddings.weight" in {t.name for t in outside}
    assert emitted.path.stat().st_size < 100_000
    assert (emitted.path.parent / "model.onnx.data").stat().st_size >= sum(np.prod(t.dims) * 4 for t in outside)


def runs_of(model: Any, name: str) -> Any:
    return next(w.runs for w in model.weight_slices if w.tensor == name)


def test_bf16_weights_keep_their_bits(compiled: Any, tmp_path: Path) -> None:
    model = compiled.emit(tmp_path / "model.onnx", "bf16")
    rounded = {name: w.astype(ml_dtypes.bfloat16) for name, w in compiled.weights.items()}
    embed_weights(model, lambda name: slice_array(rounded[name], runs_of(model, name)))
    loaded = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(model.path).graph.initializer}
    for port in model.weights:
        expected = slice_array(rounded[port.name], runs_of(model, port.name))
        assert loaded[port.name].tobytes() == expected.tobytes(), port.name
