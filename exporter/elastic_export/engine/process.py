"""The parent's side of a build: one child process per engine, its end turned into facts or into an error of ours.

Why a process of its own: TensorRT ends its process where it finds a fault (a missing library, memory), and an export of
many engines must outlive that; what the builder keeps in memory goes with it; and only a process that is started for
the purpose can have fixed addresses and another allocator, see `isolation.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from elastic_export.engine.build import OTHERWISE, check_creators
from elastic_export.engine.build_folder import (
    ENGINE_FILE,
    LIBRARY_FOLDER,
    LOG_FILE,
    OUT_FOLDER,
    RESULT_FILE,
    BuildFaultError,
    BuildFolder,
    build_error,
    build_folder,
    last_words,
    write_processor,
)
from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.engine.flavour import check_builder, flavour
from elastic_export.engine.isolation import claimed_processor, fixed_addresses
from elastic_export.engine.request import EngineRequest
from elastic_export.engine.rtx import check_header
from elastic_export.packages import child_path
from elastic_export.plan.limits import check_precision, check_sizes
from elastic_export.products import product_of
from elastic_runtime.errors import NO_ROOM, BuildError, ElasticError, InputError, InternalError
from elastic_runtime.format.digest import file_digest
from elastic_runtime.format.engine_code import Code, HostCode, host_code
from elastic_runtime.format.interface import OpsMode

#: Seconds; a native 12B takes about 40 on one slow core, so this is a hang.
TIMEOUT = 3600.0
_GLANCE = 0.2  # seconds between two looks at whether a build is still wanted
#: What the build process keeps of our environment: where Python, packages, libraries and the GPU are. The rest could
#: steer the builder or the allocator, and with them the bytes of the engine.
KEPT_VARIABLES = ("PATH", "HOME", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "VIRTUAL_ENV")
#: A native engine's bytes follow what Python allocated before, and with it whether it had to compile what it imports:
#: so it always has to; child.py imports little. A plugin engine's do not.
PYTHON_OPTIONS: dict[OpsMode, tuple[str, ...]] = {"native": ("-X", "pycache_prefix=none"), "plugin": ()}
#: Of the cache rows, in the shapes of an ONNX file.
CONTEXT_SYMBOL = "S"
#: A plugin's creator may import numpy, whose libraries start threads, which would allocate in an order of chance.
SINGLE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class BuildStoppedError(Exception):
    """Nobody waits for the build any more."""


def build_engine(
    request: EngineRequest, *, timeout: float = TIMEOUT, stopped: threading.Event | None = None
) -> EngineFacts:
    """Build one engine in a process of its own and put it at `request.output` in one step.

    Args:
        request: what to build.
        timeout: seconds after which the process is killed.
        stopped: once set, the process is killed: for builds in threads, which no Ctrl-C reaches.

    Returns:
        What is known of the engine; `chances` says why its bytes are not promised to be reproducible, if they are not.

    Raises:
        InputError: the request or the model file is at fault, or TensorRT is not there; nothing was started.
        BuildError: parser, checks or builder refused; a disk or the memory is full; or the process aborted, was killed,
            hung, with its last words.
        InternalError, BuildFaultError: a fault of ours in the process, foreseen by a check or not.
        BuildStoppedError: `stopped` was set.
    """
    check_request(request)
    model = fixed_model(request)
    try:
        with build_folder(request, model) as place:
            status = run_child(place, request, timeout, stopped)
            facts = _outcome(place, request, status)
            # Before the engine gets its name: what stands there is whole.
            check_carried(place.engine, request.plugin_library)
            if flavour(request.flavour).writes_rtx_header():
                check_header(place.engine, facts.version)
            os.replace(place.engine, request.output)
    except OSError as error:  # of the temporary folder, as often as not: whoever asked for the engine cannot know
        if shown := build_error(error):
            raise shown from error
        raise
    return facts


def check_carried(engine: Path, library: Path | None) -> None:
    """Check that an engine holds its plugin library, byte for byte, and no other code for the host.

    Raises:
        InternalError: it does not, and nobody could trust it.
    """
    if library is None:
        return
    code = Code(*file_digest(library))
    found = host_code(engine.read_bytes(), [code])
    if found != HostCode((code,), ()):
        raise InternalError(
            "the engine",
            expected="its plugin library in it, and no other code",
            found=f"{len(found.known)} of the library, {len(found.unknown)} of others",
        )


def check_request(request: EngineRequest) -> None:
    """Refuse what needs no build to be refused.

    Raises:
        InputError: sizes, precision, missing plugin creators, missing TensorRT, a machine it cannot build on.
    """
    check_sizes(max_tokens=request.max_tokens, max_context=request.max_context, max_batch=request.max_batch)
    check_precision(request.precision, request.compute_capabilities)
    if request.ops == "plugin":
        check_creators(request.plugin_ops, request.plugin_creators)
    check_builder(product_of(request.flavour), {request.output.stem: request.compute_capabilities})


def fixed_model(request: EngineRequest) -> bytes:
    """Serialized model of the request with every S of its inputs and outputs replaced by `max_context`.

    The cache update layer needs a static cache length when it is parsed, so the shape must be fixed before, not by an
    optimisation profile. The file on disk keeps its symbol: one file serves every context. Done here, not in the build
    process, which would have to import onnx for it.

    Raises:
        InputError: the file is no ONNX model.
    """
    try:
        model = onnx.load(str(request.onnx), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise InputError(
            str(request.onnx), expected="an ONNX model", found=str(error), todo="name a model.onnx of a bundle"
        ) from error
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == CONTEXT_SYMBOL:
                dim.dim_value = request.max_context
    return bytes(model.SerializeToString(deterministic=True))


def run_child(
    place: BuildFolder, request: EngineRequest, timeout: float, stopped: threading.Event | None = None
) -> int:
    """Run the build process to its end; return its status, negative for a signal. Nothing survives this call.

    Raises:
        BuildError: it took longer than `timeout` seconds.
        BuildStoppedError: `stopped` was set.
    """
    # -B: compiled modules that one build leaves behind would move what the next one allocates.
    command = [sys.executable, "-B", *PYTHON_OPTIONS[request.ops], "-m", "elastic_export.engine.child"]
    child = None
    with claimed_processor() as processor:
        write_processor(place.folder, processor)
        try:
            with (place.folder / LOG_FILE).open("wb") as log, fixed_addresses():
                child = subprocess.Popen(
                    command,
                    cwd=place.folder,
                    env=child_environment(os.environ, flavour(request.flavour).preloads()),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C reaches us alone; we end the child
                )
            return _wait(child, timeout, stopped)
        except subprocess.TimeoutExpired as error:
            raise BuildError(
                request.output.name,
                expected=f"the builder to end within {timeout:g} s",
                found=f"it still ran, last words: {last_words(place.log())}",
                todo="build on a faster or less busy machine; if it hangs there too, report it with these words",
            ) from error
        finally:
            if child is not None:
                _kill(child)


def _wait(child: subprocess.Popen[bytes], timeout: float, stopped: threading.Event | None) -> int:
    if stopped is None:
        return child.wait(timeout)
    end = time.monotonic() + timeout
    while not stopped.is_set():
        try:
            return child.wait(min(_GLANCE, max(0.0, end - time.monotonic())))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= end:
                raise
    raise BuildStoppedError


def child_environment(environment: Mapping[str, str], preloads: Sequence[str] = ()) -> dict[str, str]:
    """Environment of the build process: what it needs of ours, our packages, the private library folder, no chance."""
    kept = {name: environment[name] for name in KEPT_VARIABLES if name in environment}
    kept.update(dict.fromkeys(SINGLE_THREAD, "1"), PYTHONHASHSEED="0", PYTHONSAFEPATH="1", LC_ALL="C.UTF-8")
    kept["PYTHONPATH"] = child_path(kept)
    kept["LD_LIBRARY_PATH"] = _joined([LIBRARY_FOLDER, kept.get("LD_LIBRARY_PATH", "")])
    if preloads:
        kept["LD_PRELOAD"] = _joined(preloads)
    return kept


def _outcome(place: BuildFolder, request: EngineRequest, status: int) -> EngineFacts:
    result = place.result() if status == 0 else None
    if isinstance(result, BuildFaultError):
        raise result
    if isinstance(result, ElasticError):
        raise _with_real_names(result, request)
    if status in NO_ROOM:
        raise OSError(status, os.strerror(status), str(place.folder / RESULT_FILE))
    if result is None:
        raise BuildError(
            request.output.name,
            expected="the builder to end with an engine or a reason",
            found=f"{describe_status(status)}, last words: {last_words(place.log())}",
            todo="free memory and try again" if status == -signal.SIGKILL else OTHERWISE,
        )
    return result


def _with_real_names(error: ElasticError, request: EngineRequest) -> ElasticError:
    """The process knows the engine by the name it has in the folder; the user by another."""
    if error.subject != f"{OUT_FOLDER}/{ENGINE_FILE}" or isinstance(error, InternalError):
        return error
    return type(error)(str(request.output), expected=error.expected, found=error.found, todo=error.todo)


def describe_status(status: int) -> str:
    """How a process ended, in words."""
    if status == -signal.SIGKILL:
        return "it was killed (signal 9, the kernel's answer to memory running out)"
    if status < 0:
        return f"it died of {signal.Signals(-status).name}"
    return f"it left with status {status}"


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)  # its session is its own, so the group is its own too
        child.wait()


def _joined(paths: Sequence[str]) -> str:
    return os.pathsep.join(path for path in paths if path)
