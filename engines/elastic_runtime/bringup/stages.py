"""What a bring-up tries, the body of each stage's process: it returns what it found, as JSON takes it.

Numbers are seconds and bytes. Arrays, too large for JSON, go to `<stage>.npz` in the folder of the report.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.blocks import Block
from elastic_runtime.driver.cuda import CudaDevice, driver_version
from elastic_runtime.driver.free_memory import card, find_card, free_ram
from elastic_runtime.errors import BuildError, ElasticError
from elastic_runtime.format.golden import read_golden
from elastic_runtime.format.manifest import BudgetEntry, EngineEntry
from elastic_runtime.format.paths import inside
from elastic_runtime.format.records import encode
from elastic_runtime.format.sketch import relative_error, sketch, written_rows
from elastic_runtime.sampling import Sampler, Sampling
from elastic_runtime.session import Session
from elastic_runtime.session_request import Request
from elastic_runtime.tensorrt.backend_tensorrt import EngineBackend
from elastic_runtime.tensorrt.call_size import SIZES
from elastic_runtime.tensorrt.open_tensorrt import open_engine
from elastic_runtime.tensorrt.plugin_library import plugin_source, read_engine
from elastic_runtime.tensorrt.preflight import load_tensorrt, package_cuda
from elastic_runtime.tensorrt.trt_engine import TrtEngine

Found = dict[str, Any]
_PACKAGES = (
    "tensorrt-rtx",
    "tensorrt-rtx-cu13",
    "tensorrt-rtx-cu12",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    "onnx",
)
_MIB = 1 << 20
#: To a stage's process: the caller vouches for the code inside engines.
TRUSTED = "trust-engine"


@dataclass(frozen=True)
class Place:
    """Where a stage runs: `engine` is a file of the manifest, none for stages that need no engine."""

    bundle: Path
    folder: Path
    engine: str = ""
    plugins: Path | None = None
    trust_engine: bool = False
    external: Path | None = None  # where the parent's shards lie

    def opened(self) -> tuple[Bundle, BudgetEntry, EngineEntry]:
        """The bundle, and the engine with its budget. Raises BuildError: there is no such engine in it."""
        bundle = Bundle.open(self.bundle, external=self.external)
        for budget in bundle.budgets:
            for engine in budget.engines:
                if engine.file == self.engine:
                    return bundle, budget, engine
        raise BuildError(self.engine, expected="an engine of the bundle", found="none", todo="name one of its files")

    def backend(self, say: Callable[[str], None] = print, *, cache: str = "kernels") -> EngineBackend:
        """The engine, opened as a session does; kernels are kept in a folder of the report."""
        bundle, budget, engine = self.opened()
        kept = self.folder / cache
        request = Request(plugin_folder=self.plugins, trust_engine=self.trust_engine, cache_folder=kept)
        backend = open_engine(bundle, budget, engine, request, card(), say=say)
        assert isinstance(backend, EngineBackend)
        return backend


def machine(place: Place) -> Found:
    """What there is; nothing is loaded but NVIDIA's own reports."""
    versions = {name: _version(name) for name in _PACKAGES}
    found: Found = {
        "system": platform.platform(),
        "wsl": "microsoft" in platform.release().lower(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "free_ram": free_ram(),
        "packages": {name: version for name, version in versions.items() if version},
        "package_cuda": package_cuda(),
        "driver_cuda": driver_version(),
        "manifest": encode(Bundle.open(place.bundle, external=place.external).manifest),
    }
    try:
        found["card"] = encode(card())
    except ElasticError as error:
        found["no_card"] = str(error)
    if smi := shutil.which("nvidia-smi"):
        asked = subprocess.run([smi, "-q"], capture_output=True, text=True, check=False, timeout=20)
        found["nvidia_smi"] = asked.stdout[-60_000:]
    return found


def device(place: Place) -> Found:
    """Every call to the driver that the runtime makes, its results compared byte by byte."""
    with closing(CudaDevice()) as opened:
        size = 64 * _MIB
        source = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
        address, back = opened.allocate(size), np.zeros(size, np.uint8)
        started = time.perf_counter()
        opened.upload_blocks(address, source, [Block(0, 0, size, 1, size, size)])
        opened.finish_uploads()
        flat = time.perf_counter() - started
        opened.download(address, back)
        rows = Block(64, 0, 1000, 4096, 4096, 2000)
        opened.zero(address, size)
        started = time.perf_counter()
        opened.upload_blocks(address, source, [rows])
        opened.finish_uploads()
        strided = time.perf_counter() - started
        there = np.zeros(rows.height * rows.target_pitch, np.uint8)
        opened.download(address, there)
        wanted = source[: rows.height * rows.source_pitch].reshape(rows.height, -1)[:, 64:1064]
        graph = opened.capture(lambda: opened.zero(address, 4096))
        opened.launch(graph)
        zeroed = np.ones(4096, np.uint8)
        opened.download(address, zeroed)
        opened.drop(graph)
        opened.free(address)
        return {
            "copies_equal": bool(np.array_equal(source, back)),
            "rows_equal": bool(np.array_equal(there.reshape(rows.height, -1)[:, :1000], wanted)),
            "graph_ran": not zeroed.any(),
            "upload_bytes_per_second": size / flat,
            "strided_bytes_per_second": rows.width * rows.height / strided,
        }


def engine(place: Place) -> Found:
    """What TensorRT says of the engine before it runs: its tensors, where they live and what they share; scratch."""
    bundle, _, entry = place.opened()
    file, said = inside(bundle.path, entry.file, entry.file), list[str]()
    source = plugin_source(entry, card().compute_capability, given=place.plugins, trusted=place.trust_engine)
    data = read_engine(entry, file)
    plugins: Any = {"plugin": source.library, "host_code": source.carried}
    with closing(CudaDevice()) as opened:
        read = TrtEngine(load_tensorrt(), entry, data, opened, **plugins, cache=None, say=said.append)
        try:
            return {"facts": read.facts(), "said": said}
        finally:
            read.close()


def context(place: Place) -> Found:
    """Opening it, and the first calls: seconds, kernels that were compiled, memory that was taken."""
    said: list[str] = []
    before = find_card()
    started = time.perf_counter()
    with closing(place.backend(said.append)) as backend:
        found: Found = {"open_seconds": time.perf_counter() - started, "memory": dict(backend.memory())}
        session, calls = Session(backend), dict[str, list[float]]()
        for tokens in (1, 1, 1, 16, 16):
            if tokens > session.room[0]:  # a small context
                break
            started = time.perf_counter()
            session.prefill([[1] * tokens])
            calls.setdefault(str(tokens), []).append(time.perf_counter() - started)
        after = find_card()
        found |= {"call_seconds": calls, "graphs": backend.graphs, "said": said}
    if before and after:
        found["taken"] = before.free - after.free
    kept = list((place.folder / "kernels").glob("*.cache"))
    return found | {"cache_bytes": sum(path.stat().st_size for path in kept)}


def golden(place: Place) -> Found:
    """The golden run with everything kept: logits of every call, a sketch of every state after every call.

    Not whether it passes, but how far each call and each state is off: the first that deviates names the layer.
    """
    bundle, budget, _ = place.opened()
    if budget.golden is None:
        return {"not_run": "the bundle has no golden run of this budget"}
    run = read_golden(inside(bundle.path, budget.golden, budget.golden))
    kept: dict[str, Any] = {}  # arrays
    logits_off, last = list[list[float]](), list[dict[str, np.ndarray[Any, Any]]]()
    with closing(place.backend()) as backend:
        for row in range(len(run.ids)):
            backend.start(1)
            off, one = list[float](), slice(row, row + 1)
            for call in range(run.calls):
                length = run.length[call][one]
                logits = backend.call(run.call_ids(call)[one], run.position[call][one], length)
                kept[f"logits.{row}.{call}"] = logits.astype(np.float16)
                if length[0]:
                    wanted = run.logits[call][row].astype(np.float64)
                    off.append(float(np.linalg.norm(logits[0] - wanted) / np.linalg.norm(wanted)))
                ends = run.position[call][one] + length
                for name, values in backend.states().items():
                    seen = written_rows(values, ends) if "cache" in name else values
                    kept[f"{name}.{row}.{call}"] = sketch(np.asarray(seen, np.float32))
            logits_off.append(off)
            last.append(dict(backend.states()))
    states_off = {}
    for name, reference in run.states.items():
        values = np.concatenate([states[name].astype(np.float32) for states in last])
        seen = written_rows(values, run.ends) if "cache" in name else values
        states_off[name] = relative_error(sketch(seen), reference)
    np.savez_compressed(place.folder / f"golden-{_plain(place.engine)}.npz", **kept)
    return {"logits_off": logits_off, "states_off": states_off, "calls": run.calls, "rows": len(run.ids)}


def speed(place: Place) -> Found:
    """Decode at the beginning, the middle and the end of the context, prefill in every length thrice, sampling."""
    with closing(place.backend()) as backend:
        found: Found = {"decode_seconds": {}, "prefill_seconds": {}}
        ids, one = np.ones((1, 1), np.int64), np.ones(1, np.int64)
        steps = min(64, backend.max_context)
        last = backend.max_context - steps
        for start in sorted({0, min(backend.max_context // 2, last), last}):
            backend.start(1)
            times = [_timed(partial(backend.call, ids, np.array([at]), one)) for at in range(start, start + steps)]
            median, p95 = float(np.median(times)), float(np.quantile(times, 0.95))
            found["decode_seconds"][str(start)] = {"median": median, "p95": p95}
        for tokens in (size for size in SIZES if 1 < size <= min(backend.max_tokens, backend.max_context)):
            backend.start(1)
            call = partial(backend.call, np.ones((1, tokens), np.int64), np.zeros(1, np.int64), np.array([tokens]))
            found["prefill_seconds"][str(tokens)] = [_timed(call) for _ in range(3)]
        logits = backend.call(ids, np.zeros(1, np.int64), one)[0]
        sampler = Sampler(Sampling(0.6, 0, 0.95, 1))
        found["sample_seconds"] = _timed(lambda: sampler.sample(logits))
        return found


def life(place: Place) -> Found:
    """Opened and closed five times: whether the card's memory comes back."""
    free = []
    for _ in range(5):
        place.backend().close()
        found = find_card()
        free.append(found.free if found else 0)
    return {"free_after_close": free, "lost": free[0] - free[-1]}


#: By name: what it runs, and how many seconds it may take.
STAGES: dict[str, tuple[Callable[[Place], Found], int]] = {
    "machine": (machine, 60),
    "device": (device, 60),
    "engine": (engine, 60),
    "context": (context, 240),
    "context-again": (context, 120),
    "golden": (golden, 180),
    "speed": (speed, 180),
    "life": (life, 120),
}


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _plain(text: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in text)
