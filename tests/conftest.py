"""What tests of several folders share: one demo bundle per test run, exported once, and graphs traced once."""

from __future__ import annotations

import atexit
import copy
import fcntl
import functools
import gc
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import onnx_ir as ir

sys.path.insert(0, str(Path(__file__).parent))  # closed_form.py and card_memory.py, for all folders

# A shell starts what runs in its background deaf to Ctrl-C, and so would be the programs that the tests interrupt.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _share_bytecode() -> None:
    """Where Python may write no bytecode (PYTHONDONTWRITEBYTECODE, as in many containers) and pip has compiled none,
    every process that a test starts compiles whatever it imports, PyTorch too, which takes longer than most tests.
    They share a temporary folder that goes with the run. Before pytest-xdist starts its workers: they inherit it.
    """
    compiled = Path(importlib.util.cache_from_source(pytest.__file__)).exists()
    if sys.dont_write_bytecode and sys.pycache_prefix is None and not compiled:
        folder = tempfile.mkdtemp(prefix="elastic-bytecode-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        sys.pycache_prefix, sys.dont_write_bytecode = folder, False
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


_share_bytecode()

# Workers of pytest-xdist, and what they start, share the processors already: more threads only wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Graphs are made of many small objects; to look for cycles after every 700 of them takes long and finds nothing.
gc.set_threshold(50_000, 20, 20)

# CI draws the same examples every time: what it refuses, anybody can repeat. Elsewhere every run draws new ones.
# No deadlines anywhere: how long an example takes says how busy the machine is.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", settings.get_profile("here"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


#: By folder, what takes seconds to make and serves many tests: one worker of pytest-xdist (--dist loadgroup) runs them.
#: Modules with such a fixture of their own carry the mark themselves.
MADE_ONCE = {
    "cpp": ("built",),
    "plugins": ("case_objects", "quick_objects", "attention_objects", "quick_attention_objects"),
    "verify": ("compiled",),
}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name in MADE_ONCE.get(item.path.parent.name, ()):
            grouped = item.get_closest_marker("xdist_group") is not None  # two marks would be a third group
            if name in getattr(item, "fixturenames", ()) and not grouped:
                item.add_marker(pytest.mark.xdist_group(name))


def pytest_collection_finish() -> None:
    """What collection made, PyTorch's modules above all, lives until the end: from here on gc.collect() does not look
    through it, a third of a second each time that a test asks whether anything outlives it.
    """
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--demo-bundle", type=Path, help="use this exported demo instead of exporting it anew (a minute)")


@pytest.fixture(scope="session")
def demo_bundle(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A bundle of random_demo.py's model: all budgets, shared weights, a native engine each for rtx5080.

    Read-only by agreement. Copy what you change.
    """
    given = request.config.getoption("--demo-bundle")
    if given:
        return Path(given)
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base  # one folder for all workers of pytest-xdist
    bundle = shared / "demo_bundle"
    with (shared / "demo_bundle.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not bundle.exists():
            _export_demo(bundle)
    return bundle


def _export_demo(output: Path) -> None:
    from elastic_export.checkpoint.reader import Checkpoint
    from elastic_export.compile import export
    from elastic_export.plan.job import ExportOptions, plan_job
    from elastic_export.progress import Progress
    from random_demo import random_demo

    checkpoint = Checkpoint.open(random_demo())
    sizes = {"max_contexts": (2048,), "max_tokens": 64, "max_batch": 2}
    options = ExportOptions("all", "rtx5080", output, ops="native", **sizes)
    export(plan_job(checkpoint, options, demo=True), Progress())


@pytest.fixture(scope="session", autouse=True)
def _translations_read_once() -> Iterator[None]:
    """torch.onnx reads its 500 translations anew for every export, half of the time that a small parent's trace takes.

    Nothing else about the export changes. Where PyTorch has moved this private function, tests only take longer.
    """
    if "elastic_export.trace.trace" not in sys.modules:  # nothing that was collected traces
        yield
        return
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        read = ONNXRegistry.from_torchlib
    except (ImportError, AttributeError):
        yield
        return
    read_once = functools.cache(read)

    def fresh(*arguments: object, **options: object) -> object:
        registry = copy.copy(read_once(*arguments, **options))
        registry.functions = {target: list(found) for target, found in registry.functions.items()}
        return registry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(fresh))
        yield


@pytest.fixture(scope="session", autouse=True)
def _waiting_threads_sleep() -> Iterator[None]:
    """onnxruntime's threads spin while they wait for the next op, beside another worker that could use the processor.

    What they compute, and in which parts, stays the same.
    """
    onnxruntime = sys.modules.get("onnxruntime")
    if onnxruntime is None:  # nothing that was collected runs a model
        yield
        return
    make = onnxruntime.SessionOptions

    def sleeping() -> object:
        options = make()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "SessionOptions", sleeping)
        yield


@pytest.fixture(scope="session")
def trace_once() -> Callable[..., ir.Model]:
    """`trace_parent` with a memory: seconds for a graph's first caller. A clone for each, as passes change graphs."""
    from elastic_export.graph.facts import clone_with_facts
    from elastic_export.trace.trace import trace_parent

    traced: dict[object, ir.Model] = {}

    def trace(arch: object, prefix: str = "backbone", *, every_token: bool = False) -> ir.Model:
        key = arch, prefix, every_token
        if key not in traced:
            traced[key] = trace_parent(arch, prefix, every_token=every_token)
        return clone_with_facts(traced[key])

    return trace


@pytest.fixture(scope="module")
def exports_trace_once(trace_once: Callable[..., ir.Model]) -> Iterator[None]:
    """The exports of this module trace each parent once: they are about what follows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("elastic_export.compile.trace_parent", trace_once)
        yield
