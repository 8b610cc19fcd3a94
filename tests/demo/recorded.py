"""A step's kernels, recorded once as a CUDA graph and played again.

A model this small has thousands of short kernels a step, and a GPU waits for their launches far longer than it
computes. What is recorded is the loss itself, forward and backward: its results are those of the steps without it. The
optimisers stay outside, since their rates are numbers that a recording would keep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import click
import torch
from torch import Tensor

#: Adds its gradients and gives what it lost, by name, in nats a token.
Loss = Callable[[dict[str, Tensor], int, Tensor], dict[str, Tensor]]

_WARM = 3  # libraries choose their kernels and take their scratch memory at first use, which no recording may
#: Of the gradients' norm: a recording against the steps that warmed it up. Atomic sums come in another order each time,
#: and are rounded to bfloat16 after.
_BOUND = 0.02


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    window: Tensor
    losses: dict[str, Tensor]
    gradients: dict[str, Tensor | None]


class Recorded:
    """A loss that is recorded at its first step, and again where `stage` says that its kernels are others.

    Where it cannot be recorded, or the recording gives other gradients, it says so and steps go on without.
    """

    def __init__(self, loss: Loss, stage: Callable[[int], int]) -> None:
        self._loss, self._stage = loss, stage
        self._recordings: dict[int, _Recording | None] = {}

    def __call__(self, parameters: dict[str, Tensor], step: int, window: Tensor) -> dict[str, Tensor]:
        stage = self._stage(step)
        if stage not in self._recordings:
            self._recordings.clear()  # with the older one's memory
            self._recordings[stage] = self._try(parameters, step, window)
        recording = self._recordings[stage]
        if recording is None:
            return self._loss(parameters, step, window)
        recording.window.copy_(window)
        recording.graph.replay()
        for name, tensor in parameters.items():
            tensor.grad = recording.gradients[name]
        return {name: value.clone() for name, value in recording.losses.items()}

    def _try(self, parameters: dict[str, Tensor], step: int, window: Tensor) -> _Recording | None:
        try:
            recording = self._record(parameters, step, window.clone())
        except (RuntimeError, AssertionError) as error:
            click.echo(f"steps are not recorded: {error!r:.300}")
            recording = None
        _forget_gradients(parameters)
        return recording

    def _record(self, parameters: dict[str, Tensor], step: int, window: Tensor) -> _Recording:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM):
                _forget_gradients(parameters)
                self._loss(parameters, step, window)
            wanted = [tensor.grad.clone() for tensor in parameters.values() if tensor.grad is not None]
        torch.cuda.current_stream().wait_stream(side)
        _forget_gradients(parameters)  # so that the recording has its own, in its own memory
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            losses = self._loss(parameters, step, window)
        gradients = {name: tensor.grad for name, tensor in parameters.items()}
        graph.replay()
        _check(wanted, [gradient for gradient in gradients.values() if gradient is not None])
        return _Recording(graph, window, losses, gradients)


def _forget_gradients(parameters: dict[str, Tensor]) -> None:
    for tensor in parameters.values():
        tensor.grad = None


def _check(wanted: list[Tensor], found: list[Tensor]) -> None:
    if len(wanted) != len(found):
        raise RuntimeError(f"{len(found)} gradients, {len(wanted)} without a recording")
    size = torch.stack([gradient.norm() for gradient in wanted]).norm()
    off = torch.stack([(a - b).norm() for a, b in zip(wanted, found, strict=True)]).norm() / size
    if not off <= _BOUND:
        raise RuntimeError(f"the recording's gradients are {float(off):.1e} off")
