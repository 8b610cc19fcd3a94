"""The ways in which a bundle holds weights, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from elastic_export.checkpoint.conversion import Conversion, Loss, convert, stored_dtype
from elastic_export.checkpoint.reader import TensorRef
from elastic_export.checkpoint.shipped import ship_companions
from elastic_export.emit import EmittedModel, ReadSlice
from elastic_export.files import MODEL, RECIPE
from elastic_export.graph.facts import TensorSlice
from elastic_export.layers.budget import Budget
from elastic_export.layers.eight_bits import EightBits
from elastic_export.plan.job import ExportJob
from elastic_export.progress import Progress
from elastic_export.weights.initialised import write_initialised
from elastic_export.weights.quantised import UNFINISHED, Quantised, counted_beside, left_in
from elastic_export.weights.recipe import quantised_recipe, shared_recipe, sliced_recipe
from elastic_export.weights.sliced import write_sliced
from elastic_export.weights.weight_loss import Rounding, WeightTally
from elastic_runtime.format.weights import WeightRecipe
from elastic_runtime.ort.weight_source import OutsideTensors, Recipe, WeightSource


class Store(Protocol):
    """The bundle in the making, as far as weights must know it (bundle.writer)."""

    def folder(self, name: str) -> Path:
        """A folder in the bundle, made if it is not there."""

    def place(self, source: Path, relative: str) -> object:
        """Link, clone or copy a file into the bundle."""

    def name_external(self, source: Path) -> object:
        """Record a file that stays outside."""

    def watch(self, source: Path) -> object:
        """Begin the digest of a file of which the bundle holds parts."""

    def digested(self, file: Path, digest: str) -> object:
        """Hear of a file in the bundle and its sha256, so that nobody reads it again."""

    def beside(self, name: str) -> Path:
        """A folder beside the bundle that stays until one is published, and outlives a run that ends before."""

    def left_beside(self, name: str) -> Path | None:
        """That folder where there is one already."""

    def adopt(self, source: Path, relative: str, digest: str | None) -> object:
        """Take a file from there into the bundle, with its sha256 where it is known."""

    def spend(self, source: Path) -> object:
        """Hear of a file there that nobody needs once a bundle is published."""


class Weights(ABC):
    """Where an export's weights lie. One object serves all budgets, one after the other."""

    def __init__(self, job: ExportJob, store: Store) -> None:
        self._job, self._store = job, store

    def stored(self, name: str) -> str:
        """The dtype in which the bundle holds a tensor of the parent."""
        checkpoint = self._job.checkpoint
        return stored_dtype(checkpoint.tensors[name].dtype, checkpoint.dtype, self._job.precision)

    def place(self, budgets: Sequence[Budget], progress: Progress) -> None:
        """What is done once, before the first budget, and for budgets that copy their parts of the shards all of it.

        Args:
            budgets: those that will be bound.
            progress: hears how far it is, where it takes long.
        """
        for shard in self._job.checkpoint.shards:
            self._store.watch(shard)

    def embedded(self) -> ReadSlice | None:
        """Reads the slices that the model file itself is to hold; None where its weights are inputs."""
        return None

    @abstractmethod
    def bind(self, budget: Budget, model: EmittedModel) -> Conversion | None:
        """Put a budget's weights, or the recipe for them, into its folder.

        Returns:
            What another precision than the checkpoint's took from them; None where it has none.
        """

    @abstractmethod
    def source(self, budget: Budget) -> WeightSource:
        """The weight inputs of a budget as a consumer loads them."""

    def rounding(self, budget: Budget) -> Rounding | None:
        """What rounding took from a budget's weights; None where they are not quantised."""
        return None

    def _conversion(self) -> Conversion | None:
        """Where the conversion of one budget's weights is counted, if there is one."""
        checkpoint, precision = self._job.checkpoint, self._job.precision
        if not checkpoint.formats and precision == checkpoint.dtype:
            return None
        return Conversion(" and ".join([*checkpoint.formats, checkpoint.dtype]), precision)

    def _folder(self, budget: Budget) -> Path:
        return self._store.folder(budget.name)

    def _write(self, budget: Budget, recipe: WeightRecipe) -> None:
        (self._folder(budget) / RECIPE).write_text(recipe.to_json(), encoding="utf-8")


class SharedWeights(Weights):
    """The parent's shards, linked; every budget takes slices of them."""

    def place(self, budgets: Sequence[Budget], progress: Progress) -> None:
        """Link the shards, or name them where they stay outside."""
        for shard in self._job.checkpoint.shards:
            if self._job.options.external_weights:
                self._store.name_external(shard)
            else:
                self._store.place(shard, f"weights/{shard.name}")

    def bind(self, budget: Budget, model: EmittedModel) -> None:
        """Write the recipe; shards are in the checkpoint's own precision."""
        self._write(budget, shared_recipe(model, self._job.checkpoint, lambda shard: f"../weights/{shard.name}"))

    def source(self, budget: Budget) -> WeightSource:
        """Slices of the shards."""
        folder, shards = self._folder(budget), self._job.checkpoint.path
        external = shards if self._job.options.external_weights else None
        return Recipe(WeightRecipe.read(folder / RECIPE), folder, external)


class QuantisedWeights(Weights):
    """The parent in eight bits, quantised once beside the bundle; every budget takes slices of its files."""

    def __init__(self, job: ExportJob, store: Store, eight_bits: EightBits, parent: str, quantiser: str) -> None:
        super().__init__(job, store)
        self._eight_bits, self._parent, self._quantiser = eight_bits, parent, quantiser
        self._tensors: dict[str, TensorRef] | None = None
        self._lost: dict[str, WeightTally] = {}

    def place(self, budgets: Sequence[Budget], progress: Progress) -> None:
        """Quantise what neither the older bundle has nor an export that did not end, take it into the bundle, and count
        what that takes from the budgets.

        Where the files are there, counting means to read the parent and to round it again: what the bundle's reports
        say is of budgets that keep other rows and columns, and the files hold what values became, not what they were.
        """
        super().place(budgets, progress)
        store, here, job = self._store, self._store.folder("weights"), self._job
        parent = Quantised(
            job.checkpoint,
            self._eight_bits,
            budgets,
            precision=job.precision,
            parent=self._parent,
            quantiser=self._quantiser,
        )

        def adopt(path: Path, known: str | None) -> None:
            store.adopt(path, f"weights/{path.name}", known)
            store.spend(counted_beside(path))

        progress.watch(parent.gauge())
        self._tensors = parent.found(here)
        if self._tensors is None:
            self._lost = parent.write(store.beside(UNFINISHED), adopt)
            self._tensors = parent.found(here)
        elif budgets:
            self._lost = parent.measure()
        # What an export that ended left and this one did not take up has the size of a model.
        if (beside := store.left_beside(UNFINISHED)) is not None:
            for left in left_in(beside):
                store.spend(left)

    def bind(self, budget: Budget, model: EmittedModel) -> None:
        """Write the recipe."""
        assert self._tensors is not None, "place() comes first"
        recipe = quantised_recipe(model, self._tensors, self._eight_bits, lambda file: f"../weights/{file.name}")
        self._write(budget, recipe)

    def rounding(self, budget: Budget) -> Rounding:
        """Counted while the parent was rounded."""
        return Rounding.of(self._lost[budget.name], "int8", self._job.checkpoint.formats)

    def source(self, budget: Budget) -> WeightSource:
        """Slices of the quantised files."""
        folder = self._folder(budget)
        return Recipe(WeightRecipe.read(folder / RECIPE), folder)


class SlicedWeights(Weights):
    """An ordinary checkpoint of each sub-model in its folder."""

    def bind(self, budget: Budget, model: EmittedModel) -> Conversion | None:
        """Stream the sub-model out, write the recipe and the ONNX file that needs none; tokenizer and licence go with
        them.
        """
        job, folder = self._job, self._folder(budget)
        dtype = None if job.precision == job.checkpoint.dtype else job.precision
        conversion = self._conversion()
        digested = self._store.digested
        tensors = write_sliced(job.checkpoint, budget, folder, dtype=dtype, conversion=conversion, digested=digested)
        recipe = sliced_recipe(model, tensors)
        self._write(budget, recipe)
        write_initialised(model.path, recipe)
        ship_companions(job.checkpoint, folder)
        return conversion

    def source(self, budget: Budget) -> WeightSource:
        """The sub-model's own tensors."""
        folder = self._folder(budget)
        return Recipe(WeightRecipe.read(folder / RECIPE), folder)


class EmbeddedWeights(Weights):
    """Weights as external data of the ONNX file and inside the engine."""

    _written: Conversion | None = None

    def embedded(self) -> ReadSlice:
        """Slices of the parent, in the dtype that is stored."""

        conversion = self._written = self._conversion()

        def read(part: TensorSlice) -> npt.NDArray[Any]:
            kept = self._job.checkpoint.cut(part.tensor, part.runs)
            stored = convert(kept, self.stored(part.tensor), part.tensor)
            if conversion is not None and stored is not kept:
                conversion.tensors[part.tensor] = Loss.of(kept, stored)  # not added: a file may be written twice
            return stored

        return read

    def bind(self, budget: Budget, model: EmittedModel) -> Conversion | None:
        """Nothing to do: they were written, and counted, with the file."""
        return self._written

    def source(self, budget: Budget) -> WeightSource:
        """The tensors beside the file."""
        return OutsideTensors(self._folder(budget) / MODEL)


def make_weights(job: ExportJob, store: Store, parent: Callable[[], str], quantiser: str = "") -> Weights:
    """The weights of the mode that was asked for; `parent` says what tells the checkpoint's weights from others,
    `quantiser` what tells this exporter from others.
    """
    if job.eight_bits is not None:
        return QuantisedWeights(job, store, job.eight_bits, parent(), quantiser)
    if job.options.weights == "shared":
        return SharedWeights(job, store)
    return SlicedWeights(job, store) if job.options.weights == "sliced" else EmbeddedWeights(job, store)
