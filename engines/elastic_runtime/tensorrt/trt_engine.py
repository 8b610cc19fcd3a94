"""An engine of TensorRT for RTX, loaded: one execution context a profile, shared scratch, the runtime cache.

Not run on a card yet: written against the Python API of tensorrt_rtx 1.7.1 (tests check that every name exists).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from elastic_runtime.driver.device import Device
from elastic_runtime.errors import BuildError
from elastic_runtime.format.manifest import EngineEntry
from elastic_runtime.tensorrt.backend_tensorrt import DECODE, PREFILL


class TrtExecutor:
    """An IExecutionContext of one profile; an `Executor`."""

    def __init__(self, context: Any, file: str) -> None:
        self._context, self._file = context, file

    def set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """See `Executor`."""
        self._accept(self._context.set_input_shape(name, shape), f"{name} of shape {list(shape)}")

    def set_address(self, name: str, address: int) -> None:
        """See `Executor`."""
        self._accept(self._context.set_tensor_address(name, address), f"an address for {name}")

    def enqueue(self, stream: int) -> None:
        """See `Executor`."""
        self._accept(self._context.execute_async_v3(stream), "to run")

    def capturable(self, stream: int) -> bool:
        """See `Executor`."""
        return bool(self._context.is_stream_capturable(stream))

    def _accept(self, accepted: bool, what: str) -> None:
        if not accepted:
            raise BuildError(
                self._file,
                expected=f"the engine to take {what}",
                found="a refusal (see its log above)",
                todo="export the bundle again, and report the log if that does not help",
            )


class TrtEngine:
    """A deserialised engine.

    Args:
        trt: the tensorrt_rtx module.
        entry: its entry in the manifest.
        path: its file.
        device: where; scratch is allocated there, once for both profiles.
        plugin: the plugin library to register first, if any.
        host_code: whether the engine carries one, which was found to be known or vouched for (plugin_library.py).
        cache: of compiled kernels: read if it is there, written by `save_cache`.
        say: hears TensorRT's warnings and errors.

    Raises:
        BuildError: TensorRT refuses plugin library or engine.
    """

    def __init__(
        self,
        trt: Any,
        entry: EngineEntry,
        path: Path,
        device: Device,
        *,
        plugin: Path | None,
        host_code: bool = False,
        cache: Path | None,
        say: Callable[[str], None],
    ) -> None:
        self._trt, self._entry, self._device, self._cache_path = trt, entry, device, cache
        self._runtime = trt.Runtime(_logger(trt, say))
        # As documented. TensorRT-RTX 1.7.1 loads a library inside an engine without it too, so it guards nothing.
        self._runtime.engine_host_code_allowed = host_code
        if plugin is not None and self._runtime.get_plugin_registry().load_library(str(plugin)) is None:
            raise BuildError(
                str(plugin),
                expected="a library that TensorRT registers",
                found="a refusal",
                todo="build plugins/ again with the SDK of the tensorrt-rtx that is installed",
            )
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise BuildError(
                entry.file,
                expected="an engine that TensorRT-RTX loads here",
                found="a refusal",
                todo="export the bundle again with the tensorrt-rtx that is installed",
            )
        self._config = self._make_config()
        self.scratch = int(self._engine.device_memory_size_v2)
        self._scratch_address = device.allocate(max(self.scratch, 1))  # of no bytes there is no address
        self._contexts: list[Any] = []

    def tensors(self) -> set[str]:
        """Names of all inputs and outputs."""
        return {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}

    def check_aliases(self) -> None:
        """Whether the engine shares buffers only where the manifest says so. Raises BuildError."""
        for port in self._entry.outputs:
            shared = self._engine.get_aliased_input_tensor(port.name) or None
            if shared is not None and (port.alias != "must" or shared != port.input):
                expected = f"its own buffer ({port.alias} share)" if port.alias != "must" else f"that of {port.input}"
                raise BuildError(
                    f"{self._entry.file}: {port.name}",
                    expected=expected,
                    found=f"that of {shared}",
                    todo="export the bundle again",
                )

    def executors(self) -> tuple[TrtExecutor, TrtExecutor]:
        """Contexts of the decode and the prefill profile; they share scratch, so they run one after the other."""
        made = []
        for profile in (DECODE, PREFILL):
            context = self._engine.create_execution_context(self._config)
            if context is None:
                raise BuildError(
                    self._entry.file,
                    expected="an execution context",
                    found="none (see the log above)",
                    todo="close what uses the card, or take a smaller budget or context",
                )
            context.set_device_memory(self._scratch_address, self.scratch)
            if not context.set_optimization_profile_async(profile, self._device.stream):
                raise BuildError(
                    self._entry.file, expected=f"a profile {profile}", found="a refusal", todo="export the bundle again"
                )
            self._contexts.append(context)
            made.append(TrtExecutor(context, self._entry.file))
        self._device.synchronize()  # profiles are set on the stream; shapes may be given once they are
        return made[0], made[1]

    def save_cache(self) -> None:
        """Write the kernels that were compiled, so that the next start compiles nothing; a full disk is no error."""
        if self._cache_path is None:
            return
        data = bytes(self._cache.serialize())
        scratch = self._cache_path.with_name(f"{self._cache_path.name}.{os.getpid()}")
        try:
            self._cache_path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(data)
            scratch.replace(self._cache_path)
        except OSError:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)

    def close(self) -> None:
        """Save the cache and give scratch, contexts and engine back, the others too where one fails."""
        try:
            self.save_cache()
        finally:
            self._contexts.clear()
            try:
                self._device.free(self._scratch_address)
            finally:
                del self._config, self._cache, self._engine, self._runtime

    def _make_config(self) -> Any:
        """Scratch is ours to place; the cache is filled from its file (TensorRT refuses one of another driver)."""
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        self._cache = config.create_runtime_cache()
        if self._cache_path is not None and self._cache_path.is_file():
            self._cache.deserialize(self._cache_path.read_bytes())
        config.set_runtime_cache(self._cache)
        return config


def _logger(trt: Any, say: Callable[[str], None]) -> Any:
    """A TensorRT logger that passes warnings and errors on."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the module is a value here
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity <= trt.ILogger.Severity.WARNING:
                say(f"TensorRT: {text}")

    return Logger()
