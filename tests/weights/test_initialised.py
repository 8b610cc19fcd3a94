"""The ONNX file whose initializers are bytes of the sliced safetensors files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.weights.initialised import write_initialised
from elastic_export.weights.recipe import sliced_recipe
from elastic_export.weights.sliced import INITIALISED, write_sliced
from elastic_runtime.errors import InternalError
from elastic_runtime.format.weights import WeightRecipe, iter_weights
from emitted_model import Compiled
from synthetic import write_checkpoint


@pytest.fixture
def written(compiled: Compiled, tmp_path: Path) -> Callable[[str], tuple[Path, WeightRecipe]]:
    """(`model.onnx`, the recipe of its weights) of a sliced sub-model in a precision, in several shards."""

    def write(precision: str) -> tuple[Path, WeightRecipe]:
        source = write_checkpoint(tmp_path / "c", compiled.arch, compiled.weights, [compiled.budget], precision)
        checkpoint = Checkpoint.open(source)
        emitted = compiled.emit(tmp_path / "model.onnx", precision)
        tensors = write_sliced(checkpoint, compiled.budget, tmp_path, max_shard_bytes=9000)
        assert len({tensor.file for tensor in tensors.values()}) > 1
        return emitted.path, sliced_recipe(emitted, tensors)

    return write


def plain_session(model: Path) -> onnxruntime.InferenceSession:
    """Nothing is computed, merged or laid out anew because a weight is known: the same sums in the same order."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def inputs_of(session: Any) -> dict[str, np.ndarray]:
    """Two tokens of one sequence; states of small random numbers."""
    rng, sizes = np.random.default_rng(0), {"B": 1, "T": 2, "S": 8}
    fed = {"input_ids": np.array([[3, 5]]), "position": np.array([0]), "length": np.array([2])}
    for value in session.get_inputs():
        if value.name not in fed and "weight" not in value.name and ".layers." not in value.name:
            shape = [sizes.get(size, size) for size in value.shape]
            dtype = {"tensor(float)": np.float32, "tensor(float16)": np.float16}[value.type]
            fed[value.name] = rng.standard_normal(shape).astype(dtype)
    return fed


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_computes_what_the_file_with_weights_as_inputs_does(written: Callable, precision: str) -> None:
    model, recipe = written(precision)
    plain, whole = plain_session(model), plain_session(write_initialised(model, recipe))
    weights = {name: np.array(array) for name, array in iter_weights(recipe, model.parent)}
    assert {value.name for value in plain.get_inputs()} - {value.name for value in whole.get_inputs()} == set(weights)
    fed = inputs_of(whole)
    for wanted, found in zip(plain.run(None, fed | weights), whole.run(None, fed), strict=True):
        assert np.isfinite(wanted).all()
        np.testing.assert_array_equal(wanted, found)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_every_weight_lies_once_in_the_shards_and_nowhere_else(written: Callable, precision: str) -> None:
    model, recipe = written(precision)
    path = write_initialised(model, recipe)
    onnx.checker.check_model(str(path), full_check=True)
    proto, extents = onnx.load(path, load_external_data=False), defaultdict(list)
    for tensor in proto.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}
            offset, length = int(place["offset"]), int(place["length"])
            extents[place["location"]].append((offset, offset + length))
            stored = dict(iter_weights(recipe, model.parent))[tensor.name]
            assert (model.parent / place["location"]).read_bytes()[offset : offset + length] == stored.tobytes()
    assert set(extents) == {path.name for path in model.parent.glob("*.safetensors")}
    for ranges in extents.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(sorted(ranges)))
    assert sum(end - start for ranges in extents.values() for start, end in ranges) == recipe.nbytes
    assert path.stat().st_size < 2 * model.stat().st_size
    tools = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    for name, array in iter_weights(recipe, model.parent):
        assert tools[name].tobytes() == array.tobytes()


def test_equal_files_give_equal_bytes(written: Callable) -> None:
    model, recipe = written("bf16")
    first = write_initialised(model, recipe).read_bytes()
    assert write_initialised(model, recipe).read_bytes() == first


def test_tensorrts_parser_reads_it_once_the_cache_has_a_length(written: Callable) -> None:
    """As `model.onnx`: a cache whose length is not a number is refused by TensorRT, wherever the weights are."""
    trt = pytest.importorskip("tensorrt_rtx")
    model, recipe = written("bf16")
    path = write_initialised(model, recipe)
    proto = onnx.load(path, load_external_data=False)
    for value in (*proto.graph.input, *proto.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == "S":
                size.dim_value = 64
    onnx.save(proto, path)
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(str(path)), [parser.get_error(i).desc() for i in range(parser.num_errors)]
    assert network.num_inputs == len(proto.graph.input)


@pytest.mark.parametrize("change", ["name", "dtype", "shape"])
def test_a_weight_that_is_not_the_input_is_a_fault_of_ours(written: Callable, change: str) -> None:
    model, recipe = written("bf16")
    first, *rest = recipe.inputs
    [part] = first.parts
    if change == "name":
        first = replace(first, name="other")
    elif change == "dtype":
        first = replace(first, parts=(replace(part, dtype="fp16"),))
    else:
        size = part.parent_shape[0] - 1
        cut = {"parent_shape": (size, *part.parent_shape[1:]), "shape": (size, *part.shape[1:])}
        first = replace(first, parts=(replace(part, **cut, runs=(((0, size),), *part.runs[1:])),))
    with pytest.raises(InternalError, match=f"weight {first.name}: expected an input of type"):
        write_initialised(model, replace(recipe, inputs=(first, *rest)))
    assert not (model.parent / INITIALISED).exists()
