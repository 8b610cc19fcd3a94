"""The ctypes calls to libcuda and NVML, run against a stand-in in main memory (fake_cuda.c)."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_runtime.driver import cuda, free_memory
from elastic_runtime.driver.blocks import Block, strided_blocks
from elastic_runtime.driver.cuda import CudaDevice
from elastic_runtime.driver.device import Rows
from elastic_runtime.errors import BuildError, InputError, UnavailableError
from elastic_runtime.format.slicing import reader_of


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in")
    path = tmp_path_factory.mktemp("cuda") / "libcuda.so"
    source = Path(__file__).with_name("fake_cuda.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-std=c11", "-O1", "-o", path, source], check=True)
    return path


@pytest.fixture
def device(library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaDevice]:
    monkeypatch.setattr(cuda, "_LIBRARY", str(library))
    opened = CudaDevice()
    yield opened
    opened.close()
    assert ctypes.CDLL(str(library)).fake_left() == 0


def test_copies_there_and_back(device: CudaDevice) -> None:
    address, array = device.allocate(4000), np.arange(1000, dtype=np.float32)
    assert address % 256 == 0
    device.upload(address, array)
    found = np.zeros(1000, np.float32)
    device.download(address, found)
    assert np.array_equal(found, array)
    device.zero(address, 400)
    device.download(address, found)
    assert not found[:100].any()
    assert np.array_equal(found[100:], array[100:])
    device.free(address)


def test_strided_copies_are_slices(device: CudaDevice) -> None:
    source = np.arange(20 * 12, dtype=np.uint16).reshape(20, 12)
    source.flags.writeable = False  # as a mapped file is
    runs = (((0, 3), (8, 5)), ((2, 4), (9, 2)))
    kept = source[[0, 1, 2, 8, 9, 10, 11, 12]][:, [2, 3, 4, 5, 9, 10]]
    address, found = device.allocate(kept.nbytes), np.zeros(kept.shape, np.uint16)
    device.upload_blocks(address, reader_of(source.reshape(-1).view(np.uint8)), strided_blocks(source.shape, runs, 2))
    device.finish_uploads()
    device.download(address, found)
    assert np.array_equal(found, kept)
    device.free(address)


@pytest.mark.parametrize("most_pitch", [cuda._MOST_PITCH, 10], ids=["in one copy", "row by row"])
def test_rows_are_copied_within_the_card(device: CudaDevice, most_pitch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_MOST_PITCH", most_pitch)
    wide, found = np.arange(5 * 12, dtype=np.uint8).reshape(5, 12), np.zeros((5, 12), np.uint8)
    source, packed, target = (device.allocate(60) for _ in range(3))
    device.upload(source, wide)
    device.zero(target, 60)
    device.copy(packed, source, Rows(5, 7, target_pitch=7, source_pitch=12))
    device.copy(target, packed, Rows(5, 7, target_pitch=12, source_pitch=7))
    device.download(target, found)
    assert np.array_equal(found[:, :7], wide[:, :7])
    assert not found[:, 7:].any()
    device.copy(target, source, Rows(5, 12, target_pitch=12, source_pitch=12))
    device.download(target, found)
    assert np.array_equal(found, wide)
    for address in (source, packed, target):
        device.free(address)


def test_graphs_are_recorded_launched_and_dropped(device: CudaDevice) -> None:
    done = []
    graph = device.capture(lambda: done.append(1))
    device.launch(graph)
    device.drop(graph)
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        device.capture(lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    device.synchronize()  # the recording was ended all the same


def test_a_refused_graph_is_a_plain_error_and_leaves_nothing(device: CudaDevice, library: Path) -> None:
    refuse = ctypes.CDLL(str(library)).fake_refuse_graphs
    refuse(1)
    try:
        with pytest.raises(BuildError, match="expected cuGraphInstantiateWithFlags to succeed"):
            device.capture(lambda: None)
    finally:
        refuse(0)


def test_a_broken_stream_gives_everything_back_all_the_same(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_LIBRARY", str(library))
    fake = ctypes.CDLL(str(library))
    device = CudaDevice()
    address, graph = device.allocate(16), device.capture(lambda: None)
    fake.fake_break_stream(1)
    try:
        for give_back in (lambda: device.drop(graph), lambda: device.free(address)):
            with pytest.raises(BuildError, match=r"cuStreamSynchronize to succeed, found .* \(700\)"):
                give_back()
        fake.fake_break_stream(2)
        with pytest.raises(BuildError, match=r"cuStreamDestroy_v2 to succeed, found .* \(700\)"):
            device.close()
    finally:
        fake.fake_break_stream(0)
    assert fake.fake_left() == 0


def test_a_card_without_a_stream_is_given_back(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_LIBRARY", str(library))
    fake = ctypes.CDLL(str(library))
    fake.fake_break_stream(3)
    try:
        with pytest.raises(BuildError, match="cuStreamCreate to succeed, found CUDA_ERROR_OUT_OF_MEMORY"):
            CudaDevice()
    finally:
        fake.fake_break_stream(0)
    assert fake.fake_left() == 0
    asked = CudaDevice._do

    def interrupted(self: CudaDevice, name: str, *arguments: Any) -> None:
        if name == "cuStreamCreate":
            raise KeyboardInterrupt
        asked(self, name, *arguments)

    monkeypatch.setattr(CudaDevice, "_do", interrupted)
    with pytest.raises(KeyboardInterrupt):
        CudaDevice()
    assert fake.fake_left() == 0


def test_rows_farther_apart_than_a_pitch_may_be_are_copied_one_by_one(device: CudaDevice) -> None:
    pitch = 2**31 + 64  # of address space: only the pages of two rows are touched
    source = np.zeros(pitch + 16, np.uint8)
    source[:16], source[pitch:] = 1, 2
    address, found = device.allocate(32), np.zeros(32, np.uint8)
    device.upload_blocks(address, reader_of(source), [Block(0, 0, 16, 2, pitch, 16)])
    device.download(address, found)
    assert found.tolist() == [1] * 16 + [2] * 16
    device.free(address)


def test_one_piece_of_memory_takes_one_plain_copy(device: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    called, do = [], device._do
    monkeypatch.setattr(device, "_do", lambda name, *arguments: (called.append(name), do(name, *arguments)))
    source, address, found = np.arange(64, dtype=np.uint8), device.allocate(64), np.zeros(64, np.uint8)
    device.upload_blocks(address, reader_of(source), [Block(0, 0, 16, 2, 16, 16), Block(32, 32, 32, 1, 32, 32)])
    device.download(address, found)
    assert np.array_equal(found, source)
    assert called.count("cuMemcpyHtoDAsync_v2") == 2
    assert called.count("cuMemAllocHost_v2") == 2  # once, however many uploads
    device.upload_blocks(address, reader_of(source), [Block(0, 0, 16, 1, 16, 16)])
    assert called.count("cuMemAllocHost_v2") == 2
    device.finish_uploads()
    assert called.count("cuMemFreeHost") == 2
    assert "cuMemcpy2DAsync_v2" not in called
    device.free(address)


def test_any_thread_may_use_the_device(device: CudaDevice) -> None:
    failed: list[BaseException] = []

    def use() -> None:
        try:
            address = device.allocate(16)
            device.upload(address, np.zeros(16, np.uint8))
            device.synchronize()
            device.free(address)
        except BaseException as error:  # of another thread, to be seen in this one
            failed.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert not failed


def test_failures_name_the_call_and_the_code(device: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError) as caught:  # another budget, or the CPU, may take its place
        device.allocate(1 << 40)
    told = "card 0: expected cuMemAlloc_v2 to succeed, found CUDA_ERROR_OUT_OF_MEMORY (2)."
    assert str(caught.value) == f"{told} Close what uses the card, or take a smaller budget or context."
    with pytest.raises(
        BuildError, match=r"found CUDA_ERROR_INVALID_VALUE \(1\)\. See whether nvidia-smi shows the card as sound"
    ) as failed:
        device.zero(12345, 1)
    assert not isinstance(failed.value, UnavailableError)
    with pytest.raises(BuildError, match="card 1: expected cuDeviceGet to succeed, found CUDA_ERROR_INVALID_DEVICE"):
        CudaDevice(1)
    monkeypatch.setattr(cuda, "_LIBRARY", "libno-such-cuda.so.1")
    with pytest.raises(
        BuildError,
        match=r"NVIDIA driver: expected libno-such-cuda\.so\.1 of CUDA 12 or 13, found .* Install NVIDIA's driver",
    ):
        CudaDevice()


def test_the_card_says_its_class_and_its_free_memory(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "_LIBRARIES", (str(library),))
    monkeypatch.setattr(cuda, "_LIBRARY", "libno-such-cuda.so.1")  # NVML alone: its own numbers
    assert free_memory.card(1) == free_memory.Card("Fake 5090", "12.0", 34 << 30, 31 << 30)
    assert free_memory.card(1).used == 3 << 30
    with pytest.raises(InputError) as caught:
        free_memory.card(2)
    assert str(caught.value) == (
        "GPU memory: expected the NVIDIA driver to find card 2, found NVML error 6. Name it with --vram."
    )
    assert free_memory.find_card(2) is None


def test_the_card_is_the_one_that_cuda_counts(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's card 0 is NVML's card 1 here, as on a machine whose faster card sits on the later bus."""
    monkeypatch.setattr(free_memory, "_LIBRARIES", (str(library),))
    monkeypatch.setattr(cuda, "_LIBRARY", str(library))
    assert cuda.pci_bus_id() == "0000:65:00.0"
    assert free_memory.card().name == "Fake 5090"
    with pytest.raises(
        InputError, match=r"GPU memory: expected a card 1 of CUDA, found CUDA error 101\. Look at CUDA_V"
    ):
        free_memory.card(1)


def test_why_there_is_no_card_is_not_swallowed(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "_LIBRARIES", (str(library),))
    monkeypatch.setattr(cuda, "_LIBRARY", str(library))
    assert free_memory.why_no_card() is None  # there is one
    refusal = ctypes.c_int.in_dll(ctypes.CDLL(str(library)), "fake_nvml_error")
    told = "GPU memory: expected the NVIDIA driver to start, found "
    for code, found in (
        (18, "a driver and a library of different versions (NVML error 18). Restart the machine, which loads the"),
        (9, "no driver that is loaded (NVML error 9). Name it with --vram."),
        (999, "NVML error 999. Name it with --vram."),
    ):
        monkeypatch.setattr(refusal, "value", code)
        assert free_memory.find_card() is None
        assert str(free_memory.why_no_card()).startswith(told + found)
    monkeypatch.setattr(free_memory, "_LIBRARIES", ("libno-such-nvml.so.1",))
    assert free_memory.why_no_card() is None  # and no driver is no news


def test_the_driver_says_which_cuda_it_runs(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_LIBRARY", str(library))
    assert cuda.driver_version() == (13, 0)
    monkeypatch.setattr(cuda, "_LIBRARY", "libno-such-cuda.so.1")
    assert cuda.driver_version() is None


def test_no_driver_is_a_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_memory, "_LIBRARIES", ("libno-such-ml.so.1",))
    with pytest.raises(InputError) as caught:
        free_memory.card()
    assert str(caught.value) == (
        "GPU memory: expected an NVIDIA driver that says how much is free, found no libno-such-ml.so.1. "
        "Name it, as in --vram 12GiB."
    )
