"""An engine of TensorRT for RTX, loaded: its execution contexts, shared scratch, the runtime cache.

Not run on a card yet: written against the Python API of tensorrt_rtx 1.7.1, and run on a recording stand-in of it that
is held against the package (tests/runtime/tensorrt).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from elastic_runtime.driver.device import Device
from elastic_runtime.errors import BuildError, InputError, UnavailableError
from elastic_runtime.format.interface import StoredDtype, shape_text
from elastic_runtime.format.manifest import EngineEntry
from elastic_runtime.format.records import show
from elastic_runtime.format.weights import WeightRecipe
from elastic_runtime.tensorrt.backend_tensorrt import DECODE, PREFILL, Executors
from elastic_runtime.tensorrt.engine_cache import write_kernels
from elastic_runtime.tensorrt.preflight import check_validity
from elastic_runtime.tensorrt.trt_executor import TrtExecutor, accepted

_LONG = 2.0  # seconds after which people are told that something goes on
#: TensorRT's words for what weights are stored in.
_STORED: dict[StoredDtype, str] = {"bf16": "BF16", "fp16": "HALF", "fp32": "FLOAT", "int8": "INT8"}
_LESS = "close what uses the card, or take a smaller budget or context"


class TrtEngine:
    """A deserialised engine.

    Args:
        trt: the tensorrt_rtx module.
        entry: its entry in the manifest.
        data: its file, as it was found to hold no code but what may run (plugin_library.py).
        device: where; scratch is allocated there, once for both profiles.
        plugin: the plugin library to register first, if any.
        host_code: whether the engine carries one, which was found to be known or vouched for (plugin_library.py).
        cache: of compiled kernels: read if it is there, written by `save_cache`.
        say: hears TensorRT's warnings and errors.

    Raises:
        UnavailableError: TensorRT says that the engine cannot run here, or refuses the plugin library.
        BuildError: it refuses the engine.
    """

    def __init__(
        self,
        trt: Any,
        entry: EngineEntry,
        data: bytes,
        device: Device,
        *,
        plugin: Path | None,
        host_code: bool = False,
        cache: Path | None,
        say: Callable[[str], None],
    ) -> None:
        self._trt, self._entry, self._device, self._cache_path = trt, entry, device, cache
        self._say = say
        self._configs: list[Any] = []
        self._executors: list[TrtExecutor] = []
        self._runtime: Any = None
        self._engine: Any = None
        self._cache: Any = None
        self._scratch_address = 0
        try:
            self._load(data, plugin, host_code)
        except BaseException:  # an interrupt too
            with suppress(BuildError):  # a device that failed fails here too; the first error is the one to tell
                self._end()  # while there is a device: the error's frames hold this object
            raise

    def tensors(self) -> set[str]:
        """Names of all inputs and outputs."""
        return {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}

    def facts(self) -> dict[str, Any]:
        """What TensorRT says of the engine, for reports; strings and numbers, scratch in bytes."""
        engine = self._engine
        return {
            "tensors": [
                {
                    "name": name,
                    "mode": str(engine.get_tensor_mode(name)),
                    "dtype": str(engine.get_tensor_dtype(name)),
                    "shape": [int(size) for size in engine.get_tensor_shape(name)],
                    "location": str(engine.get_tensor_location(name)),
                    "shape_inference": bool(engine.is_shape_inference_io(name)),
                    "aliased": engine.get_aliased_input_tensor(name) or None,
                }
                for name in sorted(self.tensors())
            ],
            "scratch": self.scratch,
            "scratch_of_profiles": [
                int(engine.get_device_memory_size_for_profile_v2(i)) for i in range(engine.num_optimization_profiles)
            ],
            "aux_streams": int(engine.num_aux_streams),
        }

    def check_locations(self) -> None:
        """Whether TensorRT reads and writes every tensor on the card, where it is given an address. Raises BuildError.

        It wants shape tensors, such as a length that sizes another tensor, in main memory: it would read their values
        from an address of the card.
        """
        for name in sorted(self.tensors()):
            on_card = self._engine.get_tensor_location(name) == self._trt.TensorLocation.DEVICE
            if not on_card or self._engine.is_shape_inference_io(name):
                raise BuildError(
                    f"{self._entry.file}: {name}",
                    expected="a tensor of the card's memory",
                    found="one of which TensorRT takes shapes" if on_card else "one of main memory",
                    todo="export the bundle again with the elastic-export of this version",
                )

    def check_logits(self) -> None:
        """Whether the engine gives the logits that there will be room for: those of the manifest. Raises BuildError."""
        port = self._entry.logits
        if port.name not in self.tensors():
            found = "none of that name"
        elif self._engine.get_tensor_dtype(port.name) != self._trt.DataType.FLOAT:
            found = "another type"
        else:
            shape = tuple(self._engine.get_tensor_shape(port.name))
            if len(shape) == len(port.shape) and shape[-1] == port.shape[-1]:
                return
            found = shape_text(shape)
        raise BuildError(
            f"{self._entry.file}: {port.name}",
            expected=f"{port.dtype} {shape_text(port.shape)} as in manifest.json",
            found=found,
            todo="export the bundle again",
        )

    def check_weights(self, recipe: WeightRecipe) -> None:
        """Whether weights.json has every weight as the engine takes it: it reads as much as it was built for, whatever
        lies behind it on the card, and two bytes are two bytes, whatever they mean.

        Raises:
            InputError: another shape or dtype; nothing is on the card yet.
        """
        known = self.tensors()
        for item in recipe.inputs:
            if item.name in known:  # `check_bindings` names the others
                shape, dtype = self._engine.get_tensor_shape(item.name), self._engine.get_tensor_dtype(item.name)
                if (tuple(shape), dtype) != (item.shape, getattr(self._trt.DataType, _STORED[item.dtype])):
                    raise InputError(
                        f"weight {show(item.name)}",
                        expected=f"the shape and dtype that {self._entry.file} has",
                        found="others in weights.json",
                        todo="export the bundle again",
                    )

    def check_aliases(self) -> None:
        """Whether the engine shares buffers where the manifest says so, and there alone.

        A buffer that must be shared, of which TensorRT does not say so, is bound as one all the same: the plugin or the
        layer works in place. What is not known is whether TensorRT copies behind it; it is said.

        Raises:
            BuildError: it shares another one.
        """
        unsaid = []
        for port in self._entry.outputs:
            with accepted(self._entry.file, f"the engine to say what {port.name} shares"):
                shared = self._engine.get_aliased_input_tensor(port.name) or None
            if shared is None and port.alias == "must":
                unsaid.append(port.name)
            elif shared is not None and (port.alias != "must" or shared != port.input):
                expected = f"its own buffer ({port.alias} share)" if port.alias != "must" else f"that of {port.input}"
                raise BuildError(
                    f"{self._entry.file}: {port.name}",
                    expected=expected,
                    found=f"that of {shared}",
                    todo="export the bundle again",
                )
        if unsaid:
            more = f" and {len(unsaid) - 1} more" if len(unsaid) > 1 else ""
            self._say(
                f"warning: {self._entry.file}: TensorRT does not say that {unsaid[0]}{more} works in place: "
                "`elastic-run BUNDLE --verify` shows whether it does"
            )

    def executors(self) -> Executors:
        """Two contexts of the decode profile and one of the prefill profile; they share scratch."""
        with accepted(self._entry.file, "a runtime configuration"):
            decode, prefill = self._make_config(), self._make_config()
            # One shape, which every step has: its kernels are compiled before the first, not behind its back.
            decode.dynamic_shapes_kernel_specialization_strategy = (
                self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
        self._configs += [decode, prefill]
        replays, started = self._replays(decode), time.monotonic()
        for config, profile in ((decode, DECODE), (decode, DECODE), (prefill, PREFILL)):
            self._add_executor(config, profile)
            if (seconds := time.monotonic() - started) >= _LONG:
                self._say(f"kernels: {len(self._executors)} of 3 contexts ready after {seconds:.0f} s")
        first, second, third = self._executors
        made = Executors((first, second), third, replays)
        self._device.synchronize()  # profiles are set on the stream; shapes may be given once they are
        return made

    def save_cache(self) -> None:
        """Write the kernels that were compiled, so that the next start compiles nothing.

        Where that cannot be, by the disk or by TensorRT, the next start compiles again and nothing else is lost.
        """
        if self._cache_path is None:
            return
        with suppress(RuntimeError):
            data = self._cache.serialize()
            if data is not None:
                write_kernels(self._cache_path, bytes(data))

    def close(self) -> None:
        """Save the cache and give everything back, the others too where one fails.

        Contexts end first: they use scratch, and NVIDIA has the cache outlive every context of its configuration.
        """
        try:
            self.save_cache()
        finally:
            self._end()

    def _end(self) -> None:
        """Give back what there is by now, contexts first."""
        for executor in self._executors:
            executor.close()
        scratch, self._scratch_address = self._scratch_address, 0
        try:
            if scratch:
                self._device.free(scratch)
        finally:
            self._configs.clear()
            self._cache = self._engine = self._runtime = None  # in this order

    def _load(self, data: bytes, plugin: Path | None, host_code: bool) -> None:
        """Runtime, plugins, engine, cache and scratch; arguments and errors as for the class."""
        trt, file = self._trt, self._entry.file
        with accepted(file, "TensorRT-RTX to start", "install tensorrt-rtx again, and the driver that it needs"):
            self._runtime = trt.Runtime(_logger(trt, self._say))
            # As documented. TensorRT-RTX 1.7.1 loads a library inside an engine without it too, so it guards nothing.
            self._runtime.engine_host_code_allowed = host_code
        if warning := check_validity(trt, self._runtime, file, data):
            self._say(warning)
        if plugin is not None and self._runtime.get_plugin_registry().load_library(str(plugin)) is None:
            raise UnavailableError(
                str(plugin),
                expected="a library that TensorRT registers",
                found="a refusal",
                todo="build plugins/ again with the SDK of the tensorrt-rtx that is installed",
            )
        with accepted(file, "an engine that TensorRT-RTX loads here"):
            self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise BuildError(
                file,
                expected="an engine that TensorRT-RTX loads here",
                found="a refusal (see its log above)",
                todo="export the bundle again with the tensorrt-rtx that is installed",
            )
        with accepted(file, "a runtime cache"):
            self._cache = self._read_cache()
            self.scratch = int(self._engine.device_memory_size_v2)
        self._scratch_address = self._device.allocate(max(self.scratch, 1))  # of no bytes there is no address

    def _add_executor(self, config: Any, profile: int) -> None:
        self._executors.append(TrtExecutor(self._context(config), self._entry.file))
        self._executors[-1].prepare(profile, (self._scratch_address, self.scratch), self._device.stream)

    def _context(self, config: Any) -> Any:
        """Nobody but its executor may hold it, no frame of a failure either: it has to end when `close` ends it."""
        with accepted(self._entry.file, "an execution context", _LESS):
            context = self._engine.create_execution_context(config)
        if context is None:
            found = "none (see the log above)"
            raise BuildError(self._entry.file, expected="an execution context", found=found, todo=_LESS)
        return context

    def _make_config(self) -> Any:
        """A configuration of contexts: scratch is ours to place, and compiled kernels go to and come from the cache."""
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.set_runtime_cache(self._cache)
        return config

    def _replays(self, config: Any) -> bool:
        """Have TensorRT replay its own CUDA graphs; whether it will."""
        wish = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        with suppress(RuntimeError):  # a property that is refused
            config.cuda_graph_strategy = wish
        return bool(config.cuda_graph_strategy == wish)

    def _read_cache(self) -> Any:
        """The cache, filled from its file; TensorRT refuses one of another card, driver or version."""
        self._configs.append(self._engine.create_runtime_config())
        cache, read = self._configs[0].create_runtime_cache(), False
        if self._cache_path is not None and self._cache_path.is_file():
            with suppress(OSError, RuntimeError):  # one that cannot be read is made anew
                read = cache.deserialize(self._cache_path.read_bytes())
        if not read:
            once = "" if self._cache_path is None else ", once"
            self._say(f"compiling the kernels of {self._entry.file} for this card{once}: up to half a minute")
        return cache


def _logger(trt: Any, say: Callable[[str], None]) -> Any:
    """A TensorRT logger that passes warnings and errors on."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # the module is a value here
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity <= trt.ILogger.Severity.WARNING:
                say(f"TensorRT: {text}")

    return Logger()
