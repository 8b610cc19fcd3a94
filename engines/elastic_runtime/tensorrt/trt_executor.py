"""An execution context of an engine, and what the bindings of TensorRT for RTX raise as errors of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from elastic_runtime.errors import BuildError

_REPORT = "export the bundle again, and report the log if that does not help"


@contextmanager
def accepted(file: str, what: str, todo: str = _REPORT) -> Iterator[None]:
    """Around calls of the bindings. They raise RuntimeError for a C++ exception or a property that is refused, and
    TypeError for an object that could not be made. Raises BuildError about the engine for either.
    """
    try:
        yield
    except (RuntimeError, TypeError) as error:
        if isinstance(error, TypeError) and "returned nullptr" not in str(error):
            raise  # called with the wrong arguments: a fault of ours
        raise BuildError(file, expected=what, found=str(error), todo=todo) from error


class TrtExecutor:
    """An IExecutionContext of one profile; an `Executor`."""

    def __init__(self, context: Any, file: str) -> None:
        self._context, self._file = context, file

    def prepare(self, profile: int, scratch: tuple[int, int], stream: int) -> None:
        """Give the context its scratch (address, bytes) and its profile, on the stream; before anything else."""
        with accepted(self._file, "the engine to take its scratch"):
            self._context.set_device_memory(*scratch)
        self._accept(lambda: self._context.set_optimization_profile_async(profile, stream), f"profile {profile}")

    def set_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """See `Executor`."""
        self._accept(lambda: self._context.set_input_shape(name, shape), f"{name} of shape {list(shape)}")

    def set_address(self, name: str, address: int) -> None:
        """See `Executor`."""
        self._accept(lambda: self._context.set_tensor_address(name, address), f"an address for {name}")

    def enqueue(self, stream: int) -> None:
        """See `Executor`."""
        self._accept(lambda: self._context.execute_async_v3(stream), "to run")

    def capturable(self, stream: int) -> bool:
        """See `Executor`."""
        with accepted(self._file, "the engine to say whether it can be recorded"):
            return bool(self._context.is_stream_capturable(stream))

    def close(self) -> None:
        """End the context, whoever holds this object still."""
        self._context = None

    def _accept(self, call: Callable[[], bool], what: str) -> None:
        with accepted(self._file, f"the engine to take {what}"):
            taken = call()
        if not taken:
            raise BuildError(
                self._file,
                expected=f"the engine to take {what}",
                found="a refusal (see its log above)",
                todo=_REPORT,
            )
