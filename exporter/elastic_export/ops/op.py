"""What an op of domain `elastic` is: one object, asked by graph, passes, emit, engine and verify.

Its parts lie in the files of its folder, each loaded when a stage first asks for it: a plan waits for neither torch nor
onnx, a build process for nothing but the plugin's creator.

    __init__.py   the object: name, operands, what becomes of it, what its attributes must be
    torch_op.py   `translation`: the PyTorch op, its shape rule, and the ONNX node that the trace records for it
    liveness.py   `RULE`: how liveness passes through it (graph/rule.py), unless as through a standard op
    lower.py      `lower`: the standard ops that it becomes       (of ops that do not ship)
    body.py       `function`: its meaning in standard ops         (of ops that ship)
    creator.py    `create`: its plugin, declared to TensorRT      (of ops that have one)

The contract of an op that ships is `plugins/<folder>/contract.json`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from elastic_export.layers.architecture import Architecture
from elastic_export.layers.kind import LayerKind
from elastic_export.ops.contract import OpContract, load_contract

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from elastic_export.graph.rule import Rule
    from elastic_export.products import Product

DOMAIN = "elastic"
#: Numbers of the config that a node must carry, by attribute.
Attributes = Callable[[Architecture], dict[str, float]]


def _none(arch: Architecture) -> dict[str, float]:
    return {}


PluginSizes = Callable[[Architecture], dict[str, tuple[str, int]]]


def _no_sizes(arch: Architecture) -> dict[str, tuple[str, int]]:
    return {}


#: Keywords of `body.function` for a model, its precision and the product that its file is for.
Form = Callable[[Architecture, str, "Product"], dict[str, Any]]


def _one_form(arch: Architecture, precision: str, product: Product) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Shipped:
    """The node that a parent op is in emitted files.

    Attributes:
        domain: `elastic`, or empty for an op of the ONNX standard.
        name: of the op.
        added: integer attributes that the masked form has no need of.
        wide: computes in float32 whatever its operands are, so these are cast on their way in and the result on its way
            out. Not asked of an op with a contract, whose operands have types of their own.
        defaults: of the attributes that a node may leave out.
    """

    domain: str
    name: str
    added: Mapping[str, int] = field(default_factory=dict)
    wide: bool = False
    defaults: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)  # there is one object an op
class Op:
    """An op of the parent graph.

    Attributes:
        name: in the parent graph.
        folder: of its parts, beside this file.
        inputs, outputs: names of its operands, in order; those in `integers` are int64, all others one float type.
        attributes: name -> `int` or `float`, in order.
        mask: the operand that a budget's mask is bound to; None where it has none.
        shipped: the node that it is in emitted files, without the mask; None where the passes lower it to standard ops.
        per_layer: how many of its nodes a layer of each kind has.
        expected: what the shipped node's attributes must be.
        like: the standard op through which liveness passes alike; None where `liveness.py` says how.
        plugin: `module:factory` that declares a plugin of the shipped name to TensorRT; None where there is none.
        form: which of its function bodies a file holds, for ops that have several.
        plugin_sizes: symbol of the contract's limits -> what a model calls that size, and how large it is.
        plugin_steps: those of these symbols that must be multiples of a constant of the kernels' header, by its name.
        inlines: whether a plugin engine holds its function body where the plugin takes no such layer; else there is no
            plugin engine of that model.
    """

    name: str
    folder: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)
    integers: frozenset[str] = frozenset()
    mask: str | None = None
    shipped: Shipped | None = None
    per_layer: Mapping[LayerKind, int] = field(default_factory=dict)
    expected: Attributes = _none
    like: str | None = None
    plugin: str | None = None
    form: Form = _one_form
    plugin_sizes: PluginSizes = _no_sizes
    plugin_steps: Mapping[str, str] = field(default_factory=dict)
    inlines: bool = False

    def __post_init__(self) -> None:
        """An entry that contradicts itself would be found by a stage far from it."""
        if not self.integers <= set(self.inputs):
            raise ValueError(f"op {self.name}: integers {sorted(self.integers)} are not all among its inputs")
        if self.mask is not None and self.mask not in self.inputs:
            raise ValueError(f"op {self.name}: its mask {self.mask} is none of its inputs")
        if self.mask is not None and self.shipped is None:
            raise ValueError(f"op {self.name}: it has a mask, so it needs `shipped`, the node without one")
        if (
            self.mask is None
            and self.shipped is not None
            and (self.shipped.domain, self.shipped.name)
            != (
                DOMAIN,
                self.name,
            )
        ):  # without a mask to remove, no pass would rename it
            raise ValueError(f"op {self.name}: without a mask it is shipped as itself, not as {self.shipped.name}")

    def operand(self, node: ir.Node, name: str) -> ir.Value:
        """The input of a node of this op, in the parent graph, that is called so; it must be there."""
        value = node.inputs[self.inputs.index(name)]
        assert value is not None, (node.name, name)
        return value

    def output(self, node: ir.Node, name: str) -> ir.Value:
        """The output of a node of this op that is called so."""
        return node.outputs[self.outputs.index(name)]

    @property
    def contract(self) -> OpContract:
        """What PyTorch op, function body, plugin and their tests agree on; of an op that ships under our domain."""
        return load_contract(self.folder)

    @property
    def ships(self) -> bool:
        """Whether it is in emitted files, as a node of our domain with a function body."""
        return self.shipped is not None and self.shipped.domain == DOMAIN

    @property
    def rule(self) -> Rule:
        """How liveness passes through it, where it is `like` no standard op."""
        return self._part("liveness").RULE  # type: ignore[no-any-return]

    def count(self, arch: Architecture) -> int:
        """Nodes of it in a model."""
        return sum(nodes * arch.count(kind) for kind, nodes in self.per_layer.items())

    def translation(self) -> tuple[Any, Callable[..., Any]]:
        """The PyTorch op and the function that records its ONNX node."""
        return self._part("torch_op").translation()  # type: ignore[no-any-return]

    def lower(self, model: ir.Model) -> int:
        """Replace all its nodes by standard ops; returns how many there were."""
        return self._part("lower").lower(model)  # type: ignore[no-any-return]

    def function(self, opset: int, arch: Architecture, precision: str, product: Product) -> onnx.FunctionProto:
        """Its meaning in standard ops, in the form that a file of that model has."""
        return self._part("body").function(opset, **self.form(arch, precision, product))  # type: ignore[no-any-return]

    def _part(self, name: str) -> Any:
        return importlib.import_module(f"{__package__}.{self.folder}.{name}")
