"""Single weight inputs of a sub-model, or some rows of one, from where a bundle holds them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
from onnx.external_data_helper import ExternalDataInfo

from elastic_runtime.errors import InputError
from elastic_runtime.format.paths import check_relative, inside
from elastic_runtime.format.weights import WeightRecipe, load_weight

Array = npt.NDArray[Any]
_AGAIN = "export the bundle again"


class WeightSource(Protocol):
    """The weight inputs of one sub-model; nothing is kept of what has been loaded."""

    @property
    def names(self) -> frozenset[str]:
        """Of all inputs."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one input, without loading it."""

    def load(self, name: str) -> Array:
        """One input, as it is stored."""

    def rows(self, name: str, first: int, count: int, axis: int = 0) -> Array:
        """Indices first .. first + count - 1 of an axis, its first unless another is named."""


class Recipe:
    """By weights.json, as a consumer loads them; `folder` and `external` as for `load_weight`."""

    def __init__(self, recipe: WeightRecipe, folder: Path, external: Path | None = None) -> None:
        self._items = {item.name: item for item in recipe.inputs}
        self._folder, self._external = folder, external

    @property
    def names(self) -> frozenset[str]:
        """See `WeightSource`."""
        return frozenset(self._items)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `WeightSource`."""
        return self._items[name].shape

    def load(self, name: str) -> Array:
        """See `WeightSource`: files are mapped for this input alone."""
        return load_weight(self._items[name], self._folder, external=self._external)

    def rows(self, name: str, first: int, count: int, axis: int = 0) -> Array:
        """See `WeightSource`; an input of several parts is loaded whole.

        The caller asks for rows that are there: the part's neighbours in the parent would be read as well.
        """
        item = self._items[name]
        assert first + count <= item.shape[axis], (name, first, count, item.shape)
        if len(item.parts) > 1:
            return _window(self.load(name), first, count, axis)
        [part] = item.parts
        shape, runs = list(part.shape), list(part.runs)
        shape[axis], runs[axis] = count, _some(runs[axis], first, count)
        kept = replace(part, shape=tuple(shape), runs=tuple(runs))
        return load_weight(replace(item, parts=(kept,)), self._folder, external=self._external)


class OutsideTensors:
    """The initializers of an ONNX file that lie in a file beside it."""

    def __init__(self, path: Path) -> None:
        tensors = onnx.load(path, load_external_data=False).graph.initializer
        outside = [tensor for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL]
        self._tensors, self._path = {tensor.name: tensor for tensor in outside}, path

    @property
    def names(self) -> frozenset[str]:
        """See `WeightSource`."""
        return frozenset(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `WeightSource`."""
        return tuple(self._tensors[name].dims)

    def load(self, name: str) -> Array:
        """See `WeightSource`. Raises InputError: the file leads out of the folder, or ends before the tensor does."""
        tensor = self._tensors[name]
        info, dtype = ExternalDataInfo(tensor), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        where = f"{self._path}: {name}"
        file = inside(self._path.parent, check_relative(info.location, where), where)
        first, size = info.offset or 0, math.prod(tensor.dims) * dtype.itemsize
        there = file.stat().st_size if file.is_file() else 0
        if info.length not in (None, size) or first + size > there:
            found = f"{there} bytes, of which {info.length} from {first} on are its"
            raise InputError(where, expected=f"{size} bytes in {file}", found=found, todo=_AGAIN)
        return np.asarray(np.memmap(file, np.uint8, "r", first, size)).view(dtype).reshape(tuple(tensor.dims))

    def rows(self, name: str, first: int, count: int, axis: int = 0) -> Array:
        """See `WeightSource`."""
        return _window(self.load(name), first, count, axis)


class Held:
    """Arrays at hand."""

    def __init__(self, weights: Iterable[tuple[str, Array]] = ()) -> None:
        self._arrays = dict(weights)

    @property
    def names(self) -> frozenset[str]:
        """See `WeightSource`."""
        return frozenset(self._arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        """See `WeightSource`."""
        return self._arrays[name].shape

    def load(self, name: str) -> Array:
        """See `WeightSource`."""
        return self._arrays[name]

    def rows(self, name: str, first: int, count: int, axis: int = 0) -> Array:
        """See `WeightSource`."""
        return _window(self._arrays[name], first, count, axis)


def _window(array: Array, first: int, count: int, axis: int) -> Array:
    view: Array = array[(slice(None),) * axis + (slice(first, first + count),)]
    return view


def _some(runs: Iterable[tuple[int, int]], first: int, count: int) -> tuple[tuple[int, int], ...]:
    """The runs of the kept indices first .. first + count - 1."""
    found, before, end = [], 0, first + count
    for start, size in runs:
        low, high = max(first, before), min(end, before + size)
        if low < high:
            found.append((start + low - before, high - low))
        before += size
    return tuple(found)
