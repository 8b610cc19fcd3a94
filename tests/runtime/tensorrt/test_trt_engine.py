"""An engine on the recording stand-in of the bindings: what is asked of TensorRT, in which order, and what outlives it.

Which names the bindings have is test_stand_in.py's to show, what they refuse test_trt_engine_refusals.py's.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elastic_runtime.errors import BuildError, UnavailableError
from elastic_runtime.tensorrt import trt_engine


@pytest.mark.parametrize("carries", [False, True])
def test_host_code_is_allowed_for_an_engine_that_carries_its_library_alone(
    trt: Any, opened: Callable[..., Any], carries: bool
) -> None:
    opened(host_code=carries)
    names = trt.WORLD.names()
    assert names.index("Runtime.engine_host_code_allowed") < names.index("Runtime.deserialize_cuda_engine")
    assert trt.WORLD.calls("Runtime.engine_host_code_allowed") == [(carries,)]


def test_contexts_share_scratch_and_have_a_profile_each(trt: Any, opened: Callable[..., Any]) -> None:
    rig = opened()
    rig.engine.executors()
    world = trt.WORLD
    assert set(world.calls("IExecutionContext.set_device_memory")) == {(4096, 1000)}
    assert sorted(set(world.calls("IExecutionContext.set_optimization_profile_async"))) == [(0, 5), (1, 5)]
    strategies = set(world.calls("IRuntimeConfig.set_execution_context_allocation_strategy"))
    assert strategies == {(trt.ExecutionContextAllocationStrategy.USER_MANAGED,)}
    names = world.names()
    assert names.index("IRuntimeConfig.set_runtime_cache") < names.index("ICudaEngine.create_execution_context")
    assert rig.engine.tensors() == {"a", "key_cache.0", "key_cache_out.0"}
    assert (rig.engine.scratch, rig.memory.held) == (1000, [4096])
    rig.engine.close()
    assert rig.memory.held == []


def test_contexts_end_first_then_scratch_and_what_they_were_made_from(trt: Any, opened: Callable[..., Any]) -> None:
    """Whoever holds an executor still, as a backend does: NVIDIA's cache must outlive every context of its config."""
    rig = opened()
    executors = rig.engine.executors()
    rig.engine.close()
    ended = [name for name in trt.WORLD.names() if name.endswith((" ended", " freed"))]
    contexts = ended.count("IExecutionContext ended")
    assert contexts >= 2
    assert ended[:contexts] == ["IExecutionContext ended"] * contexts
    assert ended.index("scratch freed") == contexts
    assert ended.index("ICudaEngine ended") < ended.index("Runtime ended")
    assert {"IRuntimeCache ended", "IRuntimeConfig ended"} < set(ended)
    assert executors


def test_tensorrt_records_decode_and_compiles_its_kernels_first(trt: Any, opened: Callable[..., Any]) -> None:
    """A step that is recorded keeps the kernels of that moment, so those made for the shape have to be there."""
    rig = opened()
    executors = rig.engine.executors()
    eager, whole = trt.DynamicShapesKernelSpecializationStrategy.EAGER, trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    strategies = [(e._context._profile, e._context._kernels, e._context._graphs) for e in executors.all()]
    assert strategies[:2] == [(0, eager, whole)] * 2
    lazy, disabled = trt.DynamicShapesKernelSpecializationStrategy.LAZY, trt.CudaGraphStrategy.DISABLED
    assert strategies[2] == (1, lazy, disabled)
    assert executors.replays
    rig.engine.close()


@pytest.mark.parametrize("how", ["raises", "answers"])
def test_where_tensorrt_records_nothing_the_backend_is_told(trt: Any, opened: Callable[..., Any], how: str) -> None:
    no = {"raises": RuntimeError("no"), "answers": trt.CudaGraphStrategy.DISABLED}[how]
    getattr(trt.WORLD, how)["IRuntimeConfig.cuda_graph_strategy"] = no
    rig = opened()
    assert not rig.engine.executors().replays
    rig.engine.close()


def test_the_kernel_cache_is_written_and_read_again(trt: Any, opened: Callable[..., Any], tmp_path: Path) -> None:
    opened().engine.close()
    assert trt.WORLD.calls("IRuntimeCache.deserialize") == []
    assert (tmp_path / "cache" / "kernels").read_bytes() == b"kernels"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["kernels"]
    opened().engine.close()
    assert trt.WORLD.calls("IRuntimeCache.deserialize") == [(b"kernels",)]


def test_that_kernels_are_compiled_is_said_before_and_while_it_lasts(
    trt: Any, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = opened()
    compiling = "compiling the kernels of x.engine for this card, once: up to half a minute"
    assert rig.said == [compiling]
    clock = iter((0.0, 0.5, 7.6, 11.0))
    monkeypatch.setattr(trt_engine.time, "monotonic", lambda: next(clock))
    rig.engine.executors()
    assert rig.said[1:] == [
        "kernels: 2 of 3 contexts ready after 8 s",
        "kernels: 3 of 3 contexts ready after 11 s",
    ]
    rig.engine.close()
    warm = opened()
    assert warm.said == []
    warm.engine.close()
    nowhere = opened(kept=False)
    assert nowhere.said == ["compiling the kernels of x.engine for this card: up to half a minute"]
    nowhere.engine.close()
    trt.WORLD.answers = {"IRuntimeCache.deserialize": False}  # of another driver
    other = opened()
    assert other.said == [compiling]
    other.engine.close()


def test_what_fails_while_it_closes_keeps_nothing_else(
    trt: Any, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a card whose every call fails after an error that CUDA keeps."""
    rig = opened()
    rig.engine.executors()
    free = rig.memory.free

    def failing(*given: int) -> bytes:
        if given:
            free(*given)
        raise BuildError("card 0", expected="luck", found="none")

    monkeypatch.setattr(rig.engine, "save_cache", failing)
    monkeypatch.setattr(rig.memory, "free", failing)
    with pytest.raises(BuildError, match="luck"):
        rig.engine.close()
    assert rig.memory.held == []
    gc.collect()
    assert not any(trt.WORLD.living.values())


def test_a_cache_that_cannot_be_kept_or_read_is_no_error(trt: Any, opened: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")
    opened().engine.close()
    (tmp_path / "cache").unlink()
    trt.WORLD.answers = {"IRuntimeCache.serialize": None}
    opened().engine.close()
    trt.WORLD.answers = {}
    trt.WORLD.raises = {"IRuntimeCache.serialize": RuntimeError("no memory")}
    opened().engine.close()
    assert not (tmp_path / "cache").exists()
    trt.WORLD.raises = {}
    (tmp_path / "cache" / "kernels").mkdir(parents=True)  # as one that may not be read
    opened().engine.close()
    (tmp_path / "cache" / "kernels").rmdir()
    opened().engine.close()
    trt.WORLD.raises = {"IRuntimeCache.deserialize": RuntimeError("of another driver")}
    opened().engine.close()


def test_a_plugin_library_is_registered_before_the_engine(trt: Any, opened: Callable[..., Any], tmp_path: Path) -> None:
    opened(plugin=tmp_path / "lib.so").engine.close()
    names = trt.WORLD.names()
    assert names.index("IPluginRegistry.load_library") < names.index("Runtime.deserialize_cuda_engine")
    trt.WORLD.answers = {"IPluginRegistry.load_library": None}
    with pytest.raises(UnavailableError, match="expected a library that TensorRT registers, found a refusal"):
        opened(plugin=tmp_path / "lib.so")


def test_what_tensorrt_says_of_an_engine_is_recorded_by_profile(trt: Any, opened: Callable[..., Any]) -> None:
    """Contexts take turns on scratch of the larger profile; a report has each one's."""
    rig = opened()
    facts = rig.engine.facts()
    assert (facts["scratch"], facts["scratch_of_profiles"], facts["aux_streams"]) == (1000, [512, 1000], 0)
    assert [t["name"] for t in facts["tensors"]] == ["a", "key_cache.0", "key_cache_out.0"]
    assert facts["tensors"][2]["aliased"] == "key_cache.0"
    assert facts["tensors"][0]["shape"] == [-1]
    rig.engine.close()
