"""Recorded steps are those without a recording: what a GPU plays again is acted here by computing it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import recorded as module
import torch
from recorded import Recorded
from torch import Tensor

WINDOWS = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0]), torch.tensor([-1.0, 4.0])]


def loss(parameters: dict[str, Tensor], step: int, window: Tensor) -> dict[str, Tensor]:
    """The weight is in every stage, the bias in the second alone."""
    found = (parameters["weight"] * window).square().sum()
    if step >= 2:
        found = found + parameters["bias"].square().sum()
    found.backward()
    return {"loss": found.detach()}


def parameters() -> dict[str, Tensor]:
    return {"weight": torch.tensor([2.0, 3.0], requires_grad=True), "bias": torch.tensor([7.0], requires_grad=True)}


class Graph:
    """Computes the recorded step again, into the memory that it had."""

    wrong = 0.0

    def replay(self) -> None:
        names = self.names
        kept = {name: tensor.grad for name, tensor in names.items()}
        for tensor in names.values():
            tensor.grad = None
        found = loss(names, self.step, self.window)
        self.losses["loss"].copy_(found["loss"])
        for name, tensor in names.items():
            if tensor.grad is not None:
                self.gradients[name].copy_(tensor.grad + self.wrong)
            tensor.grad = kept[name]


@pytest.fixture
def acted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A GPU that is none. The steps that were recorded."""
    recorded: list[int] = []

    @contextmanager
    def graph(into: Graph) -> Iterator[None]:
        calls: list[tuple] = []
        monkeypatch.setattr(current, "hear", lambda *call: calls.append(call))
        yield
        ((into.names, into.step, into.window, into.losses),) = calls
        into.gradients = {name: tensor.grad for name, tensor in into.names.items()}
        recorded.append(into.step)

    current = SimpleNamespace(hear=lambda *_: None)
    stream = SimpleNamespace(wait_stream=lambda _: None)
    cuda = SimpleNamespace(
        Stream=lambda: stream,
        current_stream=lambda: stream,
        stream=lambda _: nullcontext(),
        CUDAGraph=Graph,
        graph=graph,
    )
    monkeypatch.setattr(module.torch, "cuda", cuda)
    monkeypatch.setattr(Graph, "wrong", 0.0)
    cuda.current = current
    return recorded


def heard(parameters: dict[str, Tensor], step: int, window: Tensor) -> dict[str, Tensor]:
    found = loss(parameters, step, window)
    module.torch.cuda.current.hear(parameters, step, window, found)
    return found


def run(step_loss: module.Loss) -> list[tuple]:
    """Of every step: its loss and its gradients, which an optimiser forgets afterwards."""
    own, steps = parameters(), []
    for step in range(4):
        found = step_loss(own, step, WINDOWS[step % 3])
        steps.append((found["loss"].tolist(), *(None if t.grad is None else t.grad.tolist() for t in own.values())))
        for tensor in own.values():
            tensor.grad = None
            with torch.no_grad():
                tensor.mul_(0.9)
    return steps


def test_a_recorded_step_gives_the_loss_and_the_gradients_of_its_own_window(acted: list[int]) -> None:
    assert run(Recorded(heard, lambda step: step // 2)) == run(loss)
    assert acted == [0, 2]


def test_without_a_gpu_it_says_so_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert run(Recorded(loss, lambda _: 0)) == run(loss)
    assert capsys.readouterr().out.count("not recorded") == 1


def test_a_recording_with_other_gradients_is_not_used(
    acted: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Graph, "wrong", 1.0)
    assert run(Recorded(heard, lambda step: step // 2)) == run(loss)
    assert "off" in capsys.readouterr().out
