"""What TensorRT refuses, raises or says otherwise than the manifest: whose error it is, and what is told."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elastic_runtime.errors import BuildError, InputError, UnavailableError
from elastic_runtime.format.interface import StoredDtype
from elastic_runtime.format.slicing import full_runs
from elastic_runtime.format.weights import StoredSlice, WeightInput, WeightRecipe


def _refused(call: Callable[[], object]) -> str:
    """What a person reads of a BuildError, of which nothing stays: its frames hold what it came from."""
    with pytest.raises(BuildError) as caught:
        call()
    text = str(caught.value)
    del caught
    gc.collect()
    return text


@pytest.mark.parametrize(
    "method",
    [
        "Runtime.get_engine_validity",
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.create_runtime_config",
        "ICudaEngine.create_execution_context",
        "IExecutionContext.set_optimization_profile_async",
        "IExecutionContext.set_input_shape",
        "IExecutionContext.is_stream_capturable",
        "IExecutionContext.execute_async_v3",
    ],
)
def test_what_the_bindings_raise_is_no_fault_of_ours(trt: Any, opened: Callable[..., Any], method: str) -> None:
    trt.WORLD.raises = {method: RuntimeError("In fill at core.cpp:7 (cudaError 2: out of memory)")}

    rigs: list[Any] = []

    def use() -> None:
        rigs.append(opened())
        first = rigs[0].engine.executors().decode[0]
        first.set_shape("a", (1,))
        first.capturable(5)
        first.enqueue(5)

    text = _refused(use)
    assert text.startswith("x.engine: expected ")
    assert "found In fill at core.cpp:7 (cudaError 2: out of memory)" in text
    for rig in rigs:
        rig.engine.close()


def test_an_engine_without_room_for_its_scratch_has_ended_when_that_is_heard(
    trt: Any, opened: Callable[..., Any]
) -> None:
    """The error's frames hold it, and the device is closed before they are gone."""
    with pytest.raises(UnavailableError, match="card 0: expected cuMemAlloc_v2 to succeed") as caught:
        opened(room=False)
    assert "ICudaEngine made" in trt.WORLD.names()
    assert {name: count for name, count in trt.WORLD.living.items() if count} == {}, caught


def test_an_engine_that_is_refused_is_an_error(trt: Any, opened: Callable[..., Any]) -> None:
    trt.WORLD.answers = {"Runtime.deserialize_cuda_engine": None}
    assert "expected an engine that TensorRT-RTX loads here, found a refusal" in _refused(opened)


@pytest.mark.parametrize(
    ("method", "answer", "told"),
    [
        ("ICudaEngine.create_execution_context", None, "expected an execution context, found none"),
        (
            "IExecutionContext.set_optimization_profile_async",
            False,
            "expected the engine to take profile 0, found a refusal",
        ),
    ],
)
def test_refused_contexts_are_errors(
    trt: Any, opened: Callable[..., Any], method: str, answer: object, told: str
) -> None:
    trt.WORLD.answers = {method: answer}
    rig = opened()
    assert told in _refused(rig.engine.executors)
    rig.engine.close()


@pytest.mark.parametrize(
    ("method", "ask", "what"),
    [
        ("set_tensor_address", lambda e: e.set_address("a", 256), "an address for a"),
        ("set_input_shape", lambda e: e.set_shape("a", (1,)), "a of shape [1]"),
        ("execute_async_v3", lambda e: e.enqueue(5), "to run"),
    ],
)
def test_refused_calls_are_errors(
    trt: Any, opened: Callable[..., Any], method: str, ask: Callable[[Any], object], what: str
) -> None:
    rig = opened()
    executor = rig.engine.executors().prefill
    if method == "execute_async_v3":
        for name in ("a", "key_cache.0"):
            executor.set_shape(name, (1,))
        for name in ("a", "key_cache.0", "key_cache_out.0"):
            executor.set_address(name, 256)
    trt.WORLD.answers = {f"IExecutionContext.{method}": False}
    assert f"x.engine: expected the engine to take {what}, found a refusal" in _refused(lambda: ask(executor))
    rig.engine.close()


@pytest.mark.parametrize(
    ("wanted", "shape", "dtype"),
    [
        ("bf16", (3, 2), "bf16"),
        ("bf16", (2,), "bf16"),
        ("bf16", (2, 3), "fp32"),
        ("bf16", (2, 3), "fp16"),  # of the same bytes, which mean other numbers
        ("fp16", (2, 3), "bf16"),
        ("fp8", (2, 3), "int8"),
    ],
)
def test_weights_that_the_engine_would_take_for_others_are_refused_before_they_are_loaded(
    trt: Any, opened: Callable[..., Any], wanted: str, shape: tuple[int, ...], dtype: StoredDtype
) -> None:
    names: tuple[StoredDtype, ...] = ("bf16", "fp16", "fp32", "int8")
    trt.WORLD.tensors += [trt.Tensor("w", True, (2, 3), wanted), *(trt.Tensor(n, True, (1,), n) for n in names)]
    rig = opened()

    def weight(name: str, shape: tuple[int, ...], dtype: StoredDtype) -> WeightInput:
        return WeightInput(name, (StoredSlice("w.bin", 0, dtype, shape, shape, full_runs(shape)),))

    right = tuple(weight(name, (1,), name) for name in names)
    rig.engine.check_weights(WeightRecipe((*right, weight("unknown", (1,), "fp32"))))
    with pytest.raises(InputError) as caught:
        rig.engine.check_weights(WeightRecipe((weight("w", shape, dtype),)))
    text = str(caught.value)
    del caught
    told = "expected the shape and dtype that x.engine has, found others in weights.json. Export the bundle again."
    assert text == f"weight w: {told}"
    rig.engine.close()


@pytest.mark.parametrize(
    ("shape", "dtype", "found"),
    [
        ((-1, 17), "float32", "[-1, 17]"),
        ((-1, -1), "float32", "[-1, -1]"),
        ((-1, -1, 16), "float32", "[-1, -1, 16]"),
        ((), "float32", "[]"),
        ((-1, 16), "int64", "another type"),
    ],
)
def test_logits_for_which_there_will_be_no_room_are_refused(
    trt: Any, opened: Callable[..., Any], shape: tuple[int, ...], dtype: str, found: str
) -> None:
    rig = opened()
    told = "x.engine: logits: expected float32 [B, 16] as in manifest.json"
    assert _refused(rig.engine.check_logits) == f"{told}, found none of that name. Export the bundle again."
    trt.WORLD.tensors[3:] = [trt.Tensor("logits", False, (-1, 16))]
    rig.engine.check_logits()
    trt.WORLD.tensors[3:] = [trt.Tensor("logits", False, shape, dtype)]
    assert _refused(rig.engine.check_logits) == f"{told}, found {found}. Export the bundle again."
    rig.engine.close()


def test_an_engine_that_shares_other_buffers_is_refused(trt: Any, opened: Callable[..., Any]) -> None:
    rig = opened()
    rig.said.clear()  # that kernels are compiled
    rig.engine.check_aliases()
    assert rig.said == []
    trt.WORLD.tensors[2].aliased = "ssm_state.0"
    assert "key_cache_out.0: expected that of key_cache.0, found that of ssm_s" in _refused(rig.engine.check_aliases)
    rig.engine.close()


def test_an_alias_that_tensorrt_does_not_tell_of_is_said(trt: Any, opened: Callable[..., Any]) -> None:
    rig = opened()
    rig.said.clear()
    trt.WORLD.tensors[2].aliased = None
    rig.engine.check_aliases()
    assert rig.said == [
        "warning: x.engine: TensorRT does not say that key_cache_out.0 works in place: `elastic-run BUNDLE --verify` "
        "shows whether it does"
    ]
    rig.engine.close()


@pytest.mark.parametrize("where", ["HOST", "DEVICE"])
def test_a_tensor_that_tensorrt_wants_in_main_memory_is_refused_by_name(
    trt: Any, opened: Callable[..., Any], where: str
) -> None:
    rig = opened()
    rig.engine.check_locations()
    trt.WORLD.tensors[0].location = trt.TensorLocation[where]
    trt.WORLD.tensors[0].shape_inference = where == "DEVICE"
    found = {"HOST": "one of main memory", "DEVICE": "one of which TensorRT takes shapes"}[where]
    assert f"x.engine: a: expected a tensor of the card's memory, found {found}" in _refused(rig.engine.check_locations)
    rig.engine.close()


@pytest.mark.parametrize(
    ("faults", "kind", "found", "todo"),
    [
        (["OLD_CUDA_DRIVER", "CUDA_ERROR"], UnavailableError, "a driver that is too old", "Update NVIDIA's driver"),
        (["OLD_CUDA_RUNTIME"], UnavailableError, "a CUDA runtime that is too old", "Pip install --upgrade tens"),
        (["VERSION_MISMATCH"], UnavailableError, "another TensorRT-RTX than the one that built it", "Install the"),
        (["UNSUPPORTED_CC"], UnavailableError, "a card whose class it was not built for", "Export the bundle for it"),
        (["INSUFFICIENT_GPU_MEMORY"], UnavailableError, "too little GPU memory", "Close what uses the card"),
        (["CUDA_ERROR"], UnavailableError, "an error of CUDA", "See whether nvidia-smi shows the card"),
        ([], UnavailableError, "a refusal without a reason", "Install it again"),
        (["MALFORMED_ENGINE"], BuildError, "something else", "Copy the bundle again"),
    ],
)
def test_what_an_engine_cannot_run_here_for_is_named_before_anything_loads(
    trt: Any, opened: Callable[..., Any], faults: list[str], kind: type[BuildError], found: str, todo: str
) -> None:
    """Nothing is wrong with an engine whose driver is too old: `--verify` must not say that it failed."""
    members = trt.EngineInvalidityDiagnostics.__members__
    trt.WORLD.validity = (trt.EngineValidity.INVALID, sum(members[name].value for name in faults))
    with pytest.raises(BuildError) as caught:
        opened(plugin=Path("lib.so"))
    assert type(caught.value) is kind
    assert (caught.value.subject, caught.value.found) == ("x.engine", found)
    assert todo in str(caught.value)
    assert not {"Runtime.deserialize_cuda_engine", "IPluginRegistry.load_library"} & set(trt.WORLD.names())
    del caught
    gc.collect()


def test_an_engine_of_a_near_class_runs_with_a_warning(trt: Any, opened: Callable[..., Any]) -> None:
    trt.WORLD.validity = (trt.EngineValidity.SUBOPTIMAL, 0)
    rig = opened()
    rig.engine.close()
    assert rig.said[0] == "warning: x.engine was not built for this card and may be slow here: export with its --target"
