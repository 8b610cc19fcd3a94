"""Real engines of a small model, built by TensorRT-RTX in processes of their own; and how a build can fail."""

from __future__ import annotations

import errno
import math
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

from elastic_export.engine import process
from elastic_export.engine.process import build_engine
from elastic_export.engine.request import EngineRequest
from elastic_export.layers.architecture import Architecture
from elastic_export.plan.activation import activation_bounds
from elastic_runtime.errors import BuildError, ElasticError, InputError, InternalError
from elastic_runtime.format.interface import logits_port


def test_an_engine_and_its_facts(request_for_small_model: EngineRequest) -> None:
    request = replace(request_for_small_model, activation_limits=(10 << 20, 10 << 20))
    facts = build_engine(request)
    assert facts.size == request.output.stat().st_size
    assert len(facts.activation_bytes) == 2
    assert 0 < facts.activation_peak < 10 << 20
    assert facts.in_place == {"key_cache.0": "key_cache_out.0", "value_cache.0": "value_cache_out.0"}
    assert facts.unused_inputs == ()
    assert facts.peak_rss > 50 << 20
    assert [path.name for path in request.output.parent.iterdir()] == ["rtx5080.engine"]


@pytest.mark.parametrize("batch", [1, 2])
def test_two_exports_give_the_same_bytes(request_for_small_model: EngineRequest, tmp_path: Path, batch: int) -> None:
    first = replace(request_for_small_model, max_batch=batch)
    (tmp_path / "a longer folder name").mkdir()
    moved = Path(tmp_path / "a longer folder name" / "model.onnx")
    moved.write_bytes(first.onnx.read_bytes())
    second = replace(first, onnx=moved, output=moved.with_name("other.engine"))
    facts = build_engine(first), build_engine(second)
    if facts[0].chances or facts[1].chances:
        pytest.skip("this kernel does not let us fix memory layout and thread order")
    assert first.output.read_bytes() == second.output.read_bytes()


def test_one_portable_engine_for_several_gpu_classes(request_for_small_model: EngineRequest) -> None:
    one = replace(request_for_small_model, compute_capabilities=("SM120",), max_batch=1)
    several = replace(one, compute_capabilities=("SM86", "SM89", "SM120"), output=one.output.with_name("rtx.engine"))
    build_engine(one)
    build_engine(several)
    assert several.output.read_bytes() != one.output.read_bytes()


def test_embedded_weights_are_found_beside_the_model(
    request_for_small_model: EngineRequest, weight_shapes: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    model = onnx.load(str(request_for_small_model.onnx))
    kept = [value for value in model.graph.input if value.name not in weight_shapes]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    rng = np.random.default_rng(0)
    for name, shape in weight_shapes.items():
        array = rng.standard_normal(shape).astype(ml_dtypes.bfloat16)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, str(tmp_path / "e.onnx"), save_as_external_data=True, location="e.onnx.data", size_threshold=0)
    row = onnx.numpy_helper.to_array(model.graph.initializer[0], str(tmp_path))[0].tobytes()
    build_engine(replace(request_for_small_model, onnx=tmp_path / "e.onnx", weights=(), max_batch=1))
    assert row in request_for_small_model.output.read_bytes()


def test_the_model_file_keeps_its_context_symbol(request_for_small_model: EngineRequest) -> None:
    before = request_for_small_model.onnx.read_bytes()
    build_engine(replace(request_for_small_model, max_context=64, max_batch=1))
    assert request_for_small_model.onnx.read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            "x = Gather(emb, input_ids)",
            "x0 = Gather(emb, input_ids) x = NoSuchOp(x0)",
            r"parser accepts, found .*NoSuchOp.*\. Install it: pip install 'tensorrt-rtx>=",
        ),
        (
            'TensorScatter<axis = 2, mode = "linear">("key_cache.0", k, position)',
            'Add("key_cache.0", "key_cache.0")',
            "key_cache.0: expected to share one buffer with key_cache_out.0, found it shared with none",
        ),
        (
            "logits = Cast<to = 1>(lg)",
            "logits = Identity(lg)",
            "output logits: expected float32 .*found bfloat16.*This is a fault of elastic-export",
        ),
    ],
)
def test_graphs_that_are_not_as_agreed(
    request_for_small_model: EngineRequest, model_text: str, old: str, new: str, text: str
) -> None:
    request = with_model(request_for_small_model, model_text, old, new)
    with pytest.raises(ElasticError, match=text):
        build_engine(request)
    assert not request.output.exists()


def with_model(request: EngineRequest, text: str, old: str, new: str) -> EngineRequest:
    """The same request for a model with one spot changed, batch 1 for speed."""
    assert text.count(old) == 1
    path = request.onnx.with_name("other.onnx")
    onnx.save(onnx.parser.parse_model(text.replace(old, new)), str(path))
    return replace(request, onnx=path, max_batch=1)


ROWS = 500_000  # of the head: 64 MB in BF16


SMALL = Architecture("M-*", ROWS, 64, (40,), (4,), 16, 1, 8, 4, 4, 2, 16, 1e-5, (0.0, math.inf))


def test_scratch_of_the_size_of_a_weight_is_refused(request_for_small_model: EngineRequest, model_text: str) -> None:
    """The bounds tell a graph that asks for the transpose of a weight input from one that does not."""
    sizes = {"max_tokens": 8, "max_context": 32, "max_batch": 1}
    small = request_for_small_model
    wide = replace(
        small,
        outputs=(logits_port(ROWS, every_token=False),),
        weights=tuple(replace(port, shape=(ROWS, 64)) if port.name == "head" else port for port in small.weights),
        activation_limits=activation_bounds(SMALL, "bf16", "native", **sizes),
    )
    text = model_text.replace("bfloat16[48,64] head", f"bfloat16[{ROWS},64] head").replace("[B,48]", f"[B,{ROWS}]")
    head = "lg = Gemm<transB = 1>(picked, head)"
    build_engine(with_model(wide, text, head, head))
    turned = "rows3 = Unsqueeze(picked, v1) turned = Transpose<perm = [1, 0]>(head) lg3 = MatMul(rows3, turned)"
    with pytest.raises(
        BuildError, match=r"activation memory of the engine in decode: expected .* a weight that the graph copies"
    ):
        build_engine(with_model(wide, text, head, f"{turned} lg = Squeeze(lg3, v1)"))


def test_an_engine_above_its_size_is_refused(request_for_small_model: EngineRequest) -> None:
    with pytest.raises(BuildError, match="size of the engine: expected at most 1000 bytes"):
        build_engine(replace(request_for_small_model, max_batch=1, size_limit=1000))
    assert not request_for_small_model.output.exists()


TOO_LARGE = "Raise the limit of a file's size (ulimit -f), or name a file system that takes files of this size."


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process and its children may grow beyond `size` bytes: a disk that is full, for all they know."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_for_the_engine(request_for_small_model: EngineRequest) -> None:
    request = replace(request_for_small_model, max_batch=1)
    size = build_engine(request).size
    request.output.unlink()
    with largest_file(size - 1), pytest.raises(BuildError) as caught:
        build_engine(request)
    assert str(caught.value) == f"{request.output}: expected room to write, found File too large. {TOO_LARGE}"
    assert list(request.output.parent.iterdir()) == []


def test_no_room_for_temporary_files(
    request_for_small_model: EngineRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the output's fault."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    with largest_file(100), pytest.raises(BuildError, match=rf"^{tmp_path}/tmp/\S+/request\.json: expected room"):
        build_engine(request_for_small_model)


@pytest.mark.parametrize(("number", "todo"), [(errno.ENOSPC, "Free some space there."), (errno.EFBIG, TOO_LARGE)])
def test_no_room_for_the_result(
    request_for_small_model: EngineRequest, monkeypatch: pytest.MonkeyPatch, number: int, todo: str
) -> None:
    monkeypatch.setattr(process, "run_child", lambda *_: number)
    with pytest.raises(BuildError) as caught:
        build_engine(request_for_small_model)
    told = f"/result.json: expected room to write, found {os.strerror(number)}. {todo}"
    assert str(caught.value).endswith(told)


def test_a_weight_of_another_name(request_for_small_model: EngineRequest) -> None:
    first, *others = request_for_small_model.weights
    request = replace(request_for_small_model, weights=(replace(first, name="embeddings"), *others))
    with pytest.raises(InternalError, match="missing embeddings, unexpected emb"):
        build_engine(request)


def test_bad_requests_start_nothing(request_for_small_model: EngineRequest, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--max-tokens: expected at most --max-context"):
        build_engine(replace(request_for_small_model, max_tokens=64))
    with pytest.raises(InputError, match="--flavour: expected tensorrt-rtx or tensorrt, found 'onnx'"):
        build_engine(replace(request_for_small_model, flavour="onnx"))
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\xff\xff not a model")
    with pytest.raises(InputError, match=r"broken\.onnx: expected an ONNX model"):
        build_engine(replace(request_for_small_model, onnx=broken))
    with pytest.raises(InputError, match=r"missing\.onnx: expected an ONNX model"):
        build_engine(replace(request_for_small_model, onnx=tmp_path / "missing.onnx"))
    assert not request_for_small_model.output.parent.exists()


def test_a_compute_capability_nobody_has(request_for_small_model: EngineRequest) -> None:
    with pytest.raises(InputError, match=r"target rtx5080: expected compute capability .*SM120.*, found SM42"):
        build_engine(replace(request_for_small_model, compute_capabilities=("SM42",)))
