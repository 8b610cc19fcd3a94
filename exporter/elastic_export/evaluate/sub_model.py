"""What is evaluated: a sub-model and where its weights lie, whether a checkpoint or a bundle holds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from elastic_export.layers.architecture import Architecture
from elastic_export.layers.axis import shape_of
from elastic_export.layers.kind import EMBEDDINGS, FINAL_NORM, HEAD, LAYER_NORM
from elastic_runtime.errors import InputError
from elastic_runtime.format.interface import Precision
from elastic_runtime.ort.weight_source import WeightSource

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Quantisation:
    """What the matrices of a sub-model have been quantised to.

    Attributes:
        name: `int8`, or the formats of a checkpoint: `FP8`.
        engine: precision of activations and bytes of weights of the engine that takes the matrices so; None: none
            does, and an export dequantises them.
    """

    name: str
    engine: tuple[Precision, int] | None = None


@dataclass(frozen=True)
class SubModel:
    """A sub-model with its weights, which are read when they are needed and cut to its widths.

    Attributes:
        name: the budget's.
        architecture: its own.
        layers: the parent's index of each of its layers.
        prefix: `backbone` or `model`, the first word of its tensors' names.
        dtype: `bf16`, `fp16` or `fp32`, of its matrices.
        weights: by the parent's names of tensors.
        dequantised: whether matrices come in float32, out of a checkpoint that holds quantised ones.
        quantisation: what its matrices have been through, whoever dequantises them; None: nothing.
    """

    name: str
    architecture: Architecture
    layers: tuple[int, ...]
    prefix: str
    dtype: str
    weights: WeightSource
    dequantised: bool = False
    quantisation: Quantisation | None = None

    @property
    def called(self) -> str:
        """What an error calls it: a budget may be evaluated in several forms at once."""
        return f"budget {self.name}, {self.dtype if self.quantisation is None else self.quantisation.name} weights"

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name in the parent and shape of every tensor."""
        arch = self.architecture
        yield self.name_of(EMBEDDINGS.name), shape_of(EMBEDDINGS.axes, arch)
        for layer, place in zip(arch.layers(), self.layers, strict=True):
            yield self.name_of(LAYER_NORM.name, place), shape_of(LAYER_NORM.axes, arch)
            for tensor in layer.kind.tensors:
                yield self.name_of(f"mixer.{tensor.name}", place), shape_of(tensor.axes, arch, layer.ordinal)
        yield self.name_of(FINAL_NORM.name), shape_of(FINAL_NORM.axes, arch)
        yield HEAD.name, shape_of(HEAD.axes, arch)

    def name_of(self, key: str, place: int | None = None) -> str:
        """A tensor's name in the parent, whose layer `place` has it."""
        return f"{self.prefix}.{key}" if place is None else f"{self.prefix}.layers.{place}.{key}"

    def check(self) -> None:
        """Whether the weights are those of the architecture. Raises InputError that names a tensor."""
        for name, shape in self.shapes():
            found = self.weights.shape(name) if name in self.weights.names else None
            if found != shape:
                raise InputError(
                    f"budget {self.name}, tensor {name}",
                    expected=f"the shape {list(shape)}",
                    found="no such tensor" if found is None else f"{list(found)}",
                    todo="export the bundle again",
                )


def chosen_rows(weights: WeightSource, name: str, rows: npt.NDArray[np.int64]) -> Array:
    """Some rows of a matrix, ascending and each once: neighbours are read together."""
    edges = np.flatnonzero(np.diff(rows) > 1) + 1
    runs = [(int(run[0]), len(run)) for run in np.split(rows, edges)]
    return np.concatenate([weights.rows(name, first, count) for first, count in runs])
