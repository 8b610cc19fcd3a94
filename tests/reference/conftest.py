"""Shared by the tests of the reference: random models and a driver that feeds a prompt in cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from elastic_export.checkpoint.synthetic import Weights, random_weights
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.reference import ElasticModel, Masks, State, budget_masks, empty_state
from masked_parent import full_masks, load_reference
from synthetic import random_architecture, random_budget

CONTEXT = 40


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors here are tiny: threads cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Model:
    """A random model with one random budget."""

    arch: Architecture
    weights: Weights
    budget: Budget
    rng: np.random.Generator

    def reference(self, dtype: torch.dtype = torch.float64, **options: object) -> ElasticModel:
        return load_reference(self.arch, self.weights.__getitem__, dtype=dtype, **options)  # type: ignore[arg-type]

    def masks(self, dtype: torch.dtype = torch.float64) -> Masks:
        return budget_masks(self.arch, self.budget, dtype)

    def full(self, dtype: torch.dtype = torch.float64) -> Masks:
        return full_masks(self.arch, dtype)

    def ids(self, batch: int, tokens: int) -> Tensor:
        return torch.from_numpy(self.rng.integers(0, self.arch.vocab_size, (batch, tokens)))

    def state(self, batch: int, dtype: torch.dtype = torch.float64) -> State:
        return empty_state(self.arch, batch, CONTEXT, dtype)


def random_model(seed: int) -> Model:
    rng = np.random.default_rng(seed)
    arch = random_architecture(rng)
    return Model(arch, random_weights(arch, rng), random_budget(arch, rng), rng)


@pytest.fixture(scope="session")
def model_of() -> Callable[[int], Model]:
    """`model_of(seed)`: a random model with a random budget."""
    return random_model


def feed(
    model: ElasticModel, masks: Masks, state: State, tokens: Sequence[Tensor], lengths: Sequence[Sequence[int]]
) -> tuple[list[Tensor], State, Tensor]:
    """Feed calls one after the other: logits of each, the last state, and the position of each row."""
    position, logits = torch.zeros(tokens[0].shape[0], dtype=torch.int64), []
    for ids, given in zip(tokens, lengths, strict=True):
        length = torch.tensor(given)
        out, state = model(ids, position, length, state, masks)
        logits.append(out)
        position = position + length
    return logits, state, position


@pytest.fixture(scope="session")
def run() -> Callable[..., tuple[list[Tensor], State, Tensor]]:
    """`run(model, masks, state, calls, lengths)`: see `feed`."""
    return feed


@pytest.fixture(scope="session")
def distance() -> Callable[[Tensor, Tensor], float]:
    """‖a−b‖₂ / ‖b‖₂; two empty or two zero tensors agree; a NaN never does."""

    def measure(a: Tensor, b: Tensor) -> float:
        assert a.shape == b.shape
        norm = float(b.norm())
        error = float((a - b).norm())
        return error / norm if norm else error

    return measure
