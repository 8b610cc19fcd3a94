"""The sub-models that a bundle ships: widths by its manifest, numbers by its ONNX files, weights as it holds them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import onnx
import onnx.numpy_helper

from elastic_export.checkpoint.budgets import select_budgets
from elastic_export.evaluate.eight_bits import VALUES, Dequantised
from elastic_export.evaluate.sub_model import Quantisation, SubModel
from elastic_export.layers.architecture import Architecture, Stored
from elastic_export.layers.kind import EMBEDDINGS
from elastic_export.ops.all_ops import SHIPPED_NODES
from elastic_export.verify.attributes import check_attributes
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from elastic_runtime.format.forms import form_name
from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.format.paths import inside
from elastic_runtime.ort.weight_source import Array, Held, OutsideTensors, Recipe, WeightSource

_AGAIN = "export the bundle again"


def bundle_models(bundle: Bundle, request: str) -> tuple[list[SubModel], SubModel]:
    """The sub-models that `request` (`all`, or names of budgets in all their forms, or of forms) asks for, and the
    largest of the bundle, which they are compared with: the parent itself is in no bundle unless a budget keeps all of
    it. They are called as the budget is, in whichever form: that is their `quantisation`.

    Raises:
        InputError: an unknown budget, or a file that is not the manifest's.
    """
    precision = bundle.manifest.precision
    forms = {entry.budget: bundle.forms(entry.budget) for entry in bundle.budgets}
    named = forms | {form: (entry,) for entry in bundle.budgets if (form := form_name(entry, precision)) not in forms}
    asked = {entry.name: entry for entries in select_budgets(named, request) for entry in entries}
    models = {name: _model(bundle, entry) for name, entry in asked.items()}
    largest = bundle.budgets[0]
    return list(models.values()), models.get(largest.name) or _model(bundle, largest)


def _model(bundle: Bundle, entry: BudgetEntry) -> SubModel:
    weights = _weights(bundle, entry)
    names = [name.removesuffix(VALUES) for name in weights.names]
    [embeddings] = [name for name in names if name.endswith(f".{EMBEDDINGS.name}")] or [""]
    if not embeddings:
        subject = f"budget {entry.name}, weights"
        raise InputError(subject, expected=f"a tensor {EMBEDDINGS.name}", found="none", todo=_AGAIN)
    prefix = embeddings.removesuffix(f".{EMBEDDINGS.name}")
    arch, precision, quantisation = _architecture(bundle, entry), bundle.manifest.precision, None
    if entry.quantisation:
        weights = Dequantised(weights, arch, _tensors(arch, entry, prefix))
        quantisation = Quantisation(entry.quantisation, (precision, entry.weight_bytes))
    model = SubModel(entry.name, arch, entry.kept_layers, prefix, precision, weights, quantisation=quantisation)
    model.check()
    return replace(model, name=entry.budget)


def _tensors(arch: Architecture, entry: BudgetEntry, prefix: str) -> Iterator[Stored]:
    """The sub-model's tensors under the names of the parent."""
    for stored in arch.tensors(prefix):
        if stored.layer is None:
            yield stored
        else:
            lead, place = f"{prefix}.layers.", entry.kept_layers[stored.layer.index]
            rest = stored.name.removeprefix(lead).partition(".")[2]
            yield stored._replace(name=f"{lead}{place}.{rest}")


def _weights(bundle: Bundle, entry: BudgetEntry) -> WeightSource:
    if entry.weights is None:
        return EmbeddedTensors(bundle.path / entry.model)
    if bundle.manifest.external_weights and bundle.external is None:
        names = ", ".join(file.path for file in bundle.manifest.external_weights)
        expected, todo = f"the folder of {names}", "name it with --weights-folder"
        raise InputError(str(bundle.path), expected=expected, found="weights that it only names", todo=todo)
    return Recipe(bundle.recipe(entry), (bundle.path / entry.weights).parent, bundle.external)


class EmbeddedTensors(OutsideTensors):
    """All initializers of an ONNX file: the large ones lie beside it, the others are held."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        tensors = onnx.load(path, load_external_data=False).graph.initializer
        held = [tensor for tensor in tensors if tensor.name not in super(EmbeddedTensors, self).names]
        self._held = Held((tensor.name, onnx.numpy_helper.to_array(tensor)) for tensor in held)

    @property
    def names(self) -> frozenset[str]:
        """See `WeightSource`."""
        return super().names | self._held.names

    def shape(self, name: str) -> tuple[int, ...]:
        """See `WeightSource`."""
        return self._held.shape(name) if name in self._held.names else super().shape(name)

    def load(self, name: str) -> Array:
        """See `WeightSource`."""
        return self._held.load(name) if name in self._held.names else super().load(name)


def _architecture(bundle: Bundle, entry: BudgetEntry) -> Architecture:
    """The manifest has the widths; what the norms and the scan compute with is an attribute of their nodes."""
    path = inside(bundle.path, entry.model, entry.model)
    file = onnx.load(path, load_external_data=False)
    found = _attributes(file)
    arch = Architecture(
        pattern=entry.pattern,
        epsilon=found.get("epsilon", 1e-5),
        time_step_limit=(found.get("time_step_min", 0.0), found.get("time_step_max", math.inf)),
        **vars(entry.widths),
    )
    worst = check_attributes(file, arch).worst
    if worst.error or len(entry.kept_layers) != len(entry.pattern):
        raise InputError(str(path), expected="the widths of the manifest", found=f"another {worst.tensor}", todo=_AGAIN)
    return arch


def _attributes(file: onnx.ModelProto) -> Mapping[str, float]:
    """The attributes of the nodes of our ops, by name; the first node's of each."""
    found: dict[str, float] = {}
    for node in file.graph.node:
        op, shipped = SHIPPED_NODES.get((node.domain, node.op_type), (None, None))
        if op is not None and shipped is not None:
            given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            found = {**shipped.defaults, **given} | found
    return found
