"""The onnxruntime backend's memories: a card's, run through a stand-in, does what main memory does; what is refused."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from card_memory import ApartMemory, apart
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError, NoCudaError
from elastic_runtime.format.weights import iter_weights
from elastic_runtime.ort import backend_onnx, onnx_memory
from elastic_runtime.ort.backend_onnx import OnnxBackend
from elastic_runtime.ort.card_copies import CardCopies
from elastic_runtime.ort.onnx_memory import CudaMemory, HostMemory, Memory, check_cuda


@pytest.fixture
def crossed() -> Iterator[Counter[str]]:
    with apart() as counts:
        yield counts


@pytest.fixture
def make(demo_bundle: Path) -> Callable[..., OnnxBackend]:
    bundle = Bundle.open(demo_bundle)
    budget = bundle.budget("small")
    model = onnx.load(bundle.path / budget.model)

    def weights(read: list[str]) -> Iterator[tuple[str, Any]]:
        for name, array in iter_weights(bundle.recipe(budget), bundle.path / "small"):
            read.append(name)
            yield name, backend_onnx.widened(array)

    def backend(memory: Memory, read: list[str] | None = None) -> OnnxBackend:
        given = weights([] if read is None else read)
        return OnnxBackend(
            model, given, wide_weights=True, max_tokens=64, max_context=600, max_batch=2, threads=1, memory=memory
        )

    return backend


def _call(backend: OnnxBackend, ids: np.ndarray, position: int) -> np.ndarray:
    rows = np.ones(len(ids), np.int64)
    return backend.call(ids, position * rows, ids.shape[1] * rows).copy()


def test_a_cards_memory_gives_what_main_memory_gives(make: Callable[..., OnnxBackend], crossed: Counter[str]) -> None:
    """Over a growth of the caches in main memory, another batch and a new sequence; all buffers begin as rubbish."""
    ids = np.random.default_rng(1).integers(0, 264, (2, 320))
    backends = [make(HostMemory()), make(ApartMemory())]
    for rows in (1, 2, 2):
        for backend in backends:
            backend.start(rows)
        for at in range(0, 320, 64):
            host, card = (_call(backend, ids[:rows, at : at + 64], at) for backend in backends)
            np.testing.assert_array_equal(host, card)
        host, card = (_call(backend, ids[:rows, :1], 320) for backend in backends)
        np.testing.assert_array_equal(host, card)
        states = [backend.states() for backend in backends]
        for name, state in states[0].items():
            whole = np.zeros_like(states[1][name])  # a cache that grows ends with the rows that it needs
            whole[tuple(slice(size) for size in state.shape)] = state
            np.testing.assert_array_equal(whole, states[1][name], err_msg=name)
    for backend in backends:
        backend.start(2)
        assert not any(state.any() for state in backend.states().values())
        backend.close()


def test_a_decode_step_sends_three_inputs_and_fetches_nothing(
    make: Callable[..., OnnxBackend], crossed: Counter[str]
) -> None:
    backend, ids = make(ApartMemory()), np.array([[65]])
    backend.start(1)
    for position in range(2):  # a binding for each bank
        _call(backend, ids, position)
    crossed.clear()
    for position in range(2, 7):
        _call(backend, ids, position)
    assert crossed == {"written": 3 * 5}
    backend.close()


def test_a_new_sequence_sends_nothing_to_the_card(make: Callable[..., OnnxBackend], crossed: Counter[str]) -> None:
    """Its states are set to zero where they lie: caches of a long context are gigabytes."""
    backend = make(ApartMemory())
    for position in range(2):  # the first call writes the other bank
        _call(backend, np.array([[65]]), position)
    assert any(buffer.read().any() for buffer in backend._banks[0].values())
    crossed.clear()
    backend.start(1)
    backend.start(2)
    assert crossed == {}
    assert not any(state.any() for state in backend.states().values())
    backend.close()


def test_the_caches_on_a_card_are_whole_from_the_beginning(
    make: Callable[..., OnnxBackend], crossed: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime keeps what a smaller one took, which the reckoning of the card's memory does not count."""
    backend, ids = make(ApartMemory()), np.full((1, 320), 65)
    rows = {name: state.shape[2] for name, state in backend.states().items() if "cache" in name}
    assert rows
    assert set(rows.values()) == {600}
    held, buffers = backend.memory(), [bank.copy() for bank in backend._banks]
    for at in range(0, 320, 64):
        _call(backend, ids[:, at : at + 64], at)
    backend.start(1)
    assert backend.memory() == held
    assert all(
        bank[n] is buffer for bank, old in zip(backend._banks, buffers, strict=True) for n, buffer in old.items()
    )
    backend.close()


def test_no_array_of_a_weight_stays_in_main_memory(make: Callable[..., OnnxBackend], crossed: Counter[str]) -> None:
    array = np.arange(6, dtype=np.float32)
    buffer = ApartMemory().holding(array)
    array.fill(9)
    assert not ApartMemory().zeros((2, 3), np.float32).read().any()
    assert buffer.read().tolist() == [0, 1, 2, 3, 4, 5]
    host, card = make(HostMemory()), make(ApartMemory())
    assert (host.device, card.device) == ("cpu", "gpu")
    assert card.memory()["weights on the card"] == host.memory()["weights"]
    assert all(isinstance(weight, onnx_memory.CudaBuffer) for weight in card.weights.values())


def test_a_session_that_fell_back_is_found_out_before_a_weight_is_read(
    make: Callable[..., OnnxBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    session = onnxruntime.InferenceSession

    def fallen(model: bytes, options: Any, *, providers: Any, **rest: Any) -> Any:
        asked.update(rest, providers=providers)
        return session(model, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", fallen)
    read: list[str] = []
    with pytest.raises(NoCudaError) as caught:
        make(CudaMemory(), read)
    assert str(caught.value) == (
        "onnxruntime on a card: expected a CUDA execution provider that works, found a session that fell back to "
        "CPUExecutionProvider. Pip install 'onnxruntime-gpu[cuda,cudnn]' in place of onnxruntime, or run on the CPU "
        "(--device cpu)."
    )
    assert read == []
    (name, options), (last, _) = asked["providers"]
    assert (name, last) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert (options["device_id"], options["use_tf32"]) == ("0", "0")
    assert asked["enable_fallback"] == 0


def test_a_provider_that_does_not_start_is_no_fault_of_the_model(
    make: Callable[..., OnnxBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA failure 100")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fails)
    with pytest.raises(NoCudaError, match="found a refusal: CUDA failure 100"):
        make(CudaMemory())
    with pytest.raises(BuildError, match=r"model\.onnx: expected a model onnxruntime runs, found CUDA failure 100"):
        make(HostMemory())


def test_a_package_without_the_provider_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(NoCudaError, match=f"found onnxruntime {onnxruntime.__version__} without one") as caught:
        check_cuda()
    assert "onnxruntime-gpu[cuda,cudnn]" in caught.value.todo


def test_a_provider_that_is_listed_must_also_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[tuple[Any, ...]] = []

    def value(*arguments: Any) -> None:
        made.append(arguments)
        if len(made) > 1:
            raise RuntimeError("CUDA Provider not available")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn"))
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", value)
    check_cuda()
    assert made[0][2:] == ("cuda", 0)
    with pytest.raises(NoCudaError, match="found one whose CUDA libraries, driver or card do not answer"):
        check_cuda()
    assert capsys.readouterr().out == ""


LINE = (
    "\x1b[1;31m2026-11-27 02:16:39.4 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()] "
    "provider_bridge_ort.cc:2043 onnxruntime::Provider& onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : "
    "FAIL : Failed to load library /lib/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open "
    "shared object file: No such file or directory\n\x1b[m\n"
)  # as onnxruntime-gpu 1.31.1 writes it


def test_what_onnxruntime_says_by_itself_is_the_reason_and_no_line_before_ours(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def value(*_: Any) -> None:
        os.write(2, LINE.encode())
        raise RuntimeError("CUDA Provider not available, can't get interface for it")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", value)
    with pytest.raises(NoCudaError, match=r"found one that does not load: libcublasLt\.so\.13: cannot open"):
        check_cuda()
    assert capfd.readouterr().err == ""


def test_what_it_says_where_nothing_fails_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(
        onnxruntime.OrtValue, "ortvalue_from_shape_and_type", lambda *_: os.write(2, b"a warning\n") and None
    )
    check_cuda()
    os.write(2, b"and on\n")
    assert capfd.readouterr().err == "a warning\nand on\n"


def test_a_card_that_is_full_or_fails_is_a_plain_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Value:
        def fails(self, *_: Any) -> None:
            raise RuntimeError("out of memory\n")

        update_inplace = numpy = fails

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", Value().fails)
    with pytest.raises(BuildError) as caught:
        CudaMemory().zeros((3, 2), np.float32)
    assert str(caught.value) == (
        "card 0: expected room for 24 bytes more, found out of memory. Close what uses the card, or take a smaller "
        "budget or context, or --device cpu."
    )
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", lambda *_: Value())
    buffer = onnx_memory.CudaBuffer((3, 2), np.dtype(np.float32), 0, CardCopies(HostMemory.providers))
    with pytest.raises(BuildError, match="card 0: expected it to take 24 bytes"):
        buffer.write(np.zeros((3, 2)))
    with pytest.raises(BuildError, match="card 0: expected it to give 24 bytes"):
        buffer.read()
    with pytest.raises(BuildError, match="card: expected onnxruntime's ConstantOfShape to run, found"):
        buffer.zero()
