"""The parent's weights, a layer at a time: what is read serves whoever needs it and is dropped.

A parent larger than the memory can be verified so. The embedding is read by the rows that are asked for, the head's
matrix in blocks of rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from elastic_export.graph.facts import StateSlice
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.kind import EMBEDDINGS
from elastic_export.reference import ElasticModel, Masks, State
from elastic_export.reference.call import Call
from elastic_export.reference.model import Block
from elastic_export.reference.state import layer_state
from elastic_runtime.errors import InputError

Array = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
_HEAD = "lm_head"


class Read(Protocol):
    """Reads a tensor, or those rows of it, as float32, rounded as the export stores it."""

    def __call__(self, name: str, rows: slice | Ints = ...) -> Array:
        """The tensor `name`."""


class Oracle:
    """The parent, its weights read when they are needed.

    Args:
        arch: the parent.
        read: reads its tensors.
        prefix: name of the backbone in the checkpoint.
        eight_bits: names of the tensors that the file has in eight bits.

    Attributes:
        passed: elements that were read so far, of `elements`.

    Methods raise InputError where a value is not finite: whoever compares with a NaN learns nothing of a file, and the
    fault lies in the checkpoint. It names the tensor that holds one, else the layer that computes one.
    """

    def __init__(self, arch: Architecture, read: Read, prefix: str, eight_bits: Collection[str] = frozenset()) -> None:
        self.architecture, self._read, self._eight_bits, self.passed = arch, read, eight_bits, 0
        with torch.device("meta"):
            self._model = ElasticModel(arch, prefix)

    @property
    def elements(self) -> int:
        """All that is read once in a pass: every tensor but the embedding."""
        embedding = self.architecture.vocab_size * self.architecture.hidden_size
        return self.architecture.parameters() - embedding

    def embed(self, ids: Ints, masks: Masks) -> Tensor:
        """Token ids [N] -> the residual stream [1, N, d]."""
        name = f"{self._model.prefix}.{EMBEDDINGS.name}"
        unique, places = np.unique(ids, return_inverse=True)
        rows = torch.from_numpy(self._read(name, unique))
        if not bool(rows.isfinite().all()):
            raise _not_finite(f"tensor {name}")
        return (rows[torch.from_numpy(places.reshape(-1))] * masks["hidden"])[None]

    @contextmanager
    def loaded_layer(self, index: int) -> Iterator[Block]:
        """Layer `index` of the parent with its weights, for as long as they are needed."""
        block = self._model.body.layers[index]
        assert isinstance(block, Block)
        with self._loaded(block, f"{self._model.prefix}.layers.{index}"):
            weights = dict(block.mixer.named_parameters())
            lead = f"{self._model.prefix}.layers.{index}.mixer."
            block.mixer.units = {key: units_of(w) for key, w in weights.items() if lead + key in self._eight_bits}
            yield block
            block.mixer.units = {}

    def states_of(self, index: int, context: int) -> State:
        """The states of a new sequence that layer `index` carries on, [1, …]; empty for most kinds."""
        return layer_state(self.architecture, list(self.architecture.layers())[index], 1, context, torch.float32)

    @contextmanager
    def loaded_norm(self) -> Iterator[None]:
        """With the final norm's weight, for `normed`."""
        with self._loaded(self._model.body.get_submodule("norm_f"), f"{self._model.prefix}.norm_f"):
            yield

    def normed(self, stream: Tensor, call: Call) -> Tensor:
        """The residual stream [1, n, d] -> what the head's matrix is multiplied with."""
        return self._model.final_norm(stream, call)

    def head_rows(self, first: int, count: int) -> Tensor:
        """Rows of the head's matrix."""
        rows = torch.from_numpy(self._read(f"{_HEAD}.weight", slice(first, first + count)))
        self.passed += rows.numel()
        return rows

    def head_units(self, rows: Tensor) -> Tensor | None:
        """The units of `head_rows` where the file has the head in eight bits."""
        return units_of(rows) if f"{_HEAD}.weight" in self._eight_bits else None

    def check_layer(self, stream: Tensor, block: Block) -> None:
        """What a layer has computed, with its weights still at hand."""
        if not bool(stream.isfinite().all()):
            self.check_layer_weights(block)
            raise _not_finite(f"layers.{block.index} of the reference")

    def check_layer_weights(self, block: Block) -> None:
        """A layer's weights."""
        self._check_weights(block, f"{self._model.prefix}.layers.{block.index}")

    def _check_weights(self, module: nn.Module, name: str) -> None:
        for key, weight in module.named_parameters():
            if not bool(weight.isfinite().all()):
                raise _not_finite(f"tensor {name}.{key}")

    def check_head(self, logits: Array, blocks: Sequence[tuple[int, int]]) -> None:
        """What the head has computed; its weights are read again where that is no number."""
        if np.isfinite(logits).all():
            return
        with self.loaded_norm():
            self._check_weights(self._model.body.get_submodule("norm_f"), f"{self._model.prefix}.norm_f")
        for block in blocks:
            if not bool(self.head_rows(*block).isfinite().all()):
                raise _not_finite(f"tensor {_HEAD}.weight")
        raise _not_finite("logits of the reference")

    @contextmanager
    def _loaded(self, module: nn.Module, name: str) -> Iterator[None]:
        weights = {key: torch.from_numpy(self._read(f"{name}.{key}")) for key, _ in module.named_parameters()}
        module.load_state_dict(weights, assign=True)
        yield
        self.passed += sum(weight.numel() for weight in weights.values())
        module.to("meta")


def units_of(rows: Tensor) -> Tensor:
    """What a product is counted in before its row's scale, of dequantised rows [n, K]: [n].

    An int8 value counts 2^-7, and the largest of a row is ±127. The rows' own scales would do as well, were they here;
    a last bit that these differ in goes out with the product.
    """
    most = rows.abs().amax(dim=1)
    return torch.where(most > 0, most * (128 / 127), torch.ones_like(most))


def _not_finite(subject: str) -> InputError:
    todo = "repair the checkpoint: what its weights compute is no number"
    return InputError(subject, expected="finite values", found="a NaN or an infinity", todo=todo)


def cut_state(state: Array, part: StateSlice) -> Array:
    """One sequence's state of the parent (no batch axis), cut to the runs that the sub-model keeps."""
    kept: Array = state[part.index(state.shape)]
    return kept


def spread_state(state: Array, part: StateSlice, shape: Sequence[int]) -> Array:
    """The inverse: a state of the sub-model inside the parent's shape, zeros around it."""
    whole = np.zeros(shape, np.float32)
    whole[part.index(shape)] = state
    return whole
