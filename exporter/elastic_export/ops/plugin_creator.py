"""The TensorRT declaration of an op's plugin in Python: what a build needs of it, read from contract.json.

Name, version, fields, types, shapes and aliases are those that the C++ creator in libelastic_plugins gives, so that an
engine built here, with neither compiler nor SDK, is byte for byte the one built with the library, and runs with it.
There is no `enqueue`: an engine of this declaration runs where the library is loaded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from elastic_export.dtypes import OF_TENSORRT

#: TensorRT's DataType by the contract's names.
TYPES = {full: name for name, full in OF_TENSORRT.items()}
#: Read by TensorRT's parser itself, whatever the op.
PARSER_FIELDS = ("plugin_version", "plugin_namespace")
Values = Mapping[str, int | float]
Symbols = Mapping[str, int]


@dataclass(frozen=True)
class Declaration:
    """An op's plugin to a build.

    Attributes:
        contract: of the op, as plain JSON.
        workspace: bytes of scratch memory of a call, from the contract's symbols.
        check: raises ValueError for attributes that the contract's limits allow and the op does not.
    """

    contract: Mapping[str, Any]
    workspace: Callable[[Symbols], int]
    check: Callable[[Values], None]


def create_creator(trt: Any, declaration: Declaration) -> Any:
    """An IPluginCreatorV3One of the op for the TensorRT module `trt`."""
    return _creator_class(trt)(declaration)


def read_fields(declaration: Declaration, given: Mapping[str, Any]) -> dict[str, int | float]:
    """The op's attributes from a node's fields, defaults filled in, in the contract's order.

    Raises:
        ValueError: an attribute is missing, unknown, or out of range; says which, expected and found.
    """
    contract, name = declaration.contract, declaration.contract["name"]
    attributes = {a["name"]: a for a in contract["attributes"]}
    unknown = sorted(set(given) - set(attributes) - set(PARSER_FIELDS))
    if unknown:
        raise ValueError(f"{name}: attributes: expected {', '.join(attributes)}, found {', '.join(unknown)}")
    values: dict[str, int | float] = {}
    for key, attribute in attributes.items():
        if key not in given and "default" not in attribute:
            raise ValueError(f"{name}: attribute {key}: expected a value, found none")
        value = given.get(key, attribute.get("default"))
        values[key] = int(value) if attribute["type"] == "int" else float(value)
    for key, value in values.items():
        if isinstance(value, int):
            limit = contract["limits"].get(attributes[key].get("symbol"))
            least, most = limit if isinstance(limit, list) else (1, math.inf)
            check_range(f"{name}: attribute {key}", value, least, most)
    declaration.check(values)
    return values


def check_range(subject: str, value: float, least: float, most: float) -> None:
    """Raise ValueError unless `value` is a number from `least` to `most`."""
    if math.isnan(value) or not least <= value <= most:
        expected = f"{least} or more" if most == math.inf else f"{least} to {most}"
        raise ValueError(f"{subject}: expected {expected}, found {value}")


def bind_shapes(contract: Mapping[str, Any], values: Values, dims: Sequence[Any]) -> dict[str, int]:
    """The contract's symbols from attributes and dims of the inputs, every dimension checked against its formula.

    Raises:
        ValueError: naming the input, the expected dims and those found.
    """
    name, inputs = contract["name"], contract["inputs"]
    shapes = {operand["name"]: tuple(d) for operand, d in zip(inputs, dims, strict=True)}
    for operand in inputs:
        found, rank = shapes[operand["name"]], len(operand["shape"])
        if len(found) != rank:
            raise ValueError(f"{name}: rank of {operand['name']}: expected {rank}, found {list(found)}")
    symbols = _solve(contract, values, shapes)
    for operand in inputs:
        found = shapes[operand["name"]]
        wanted = tuple(formula(text, symbols) for text in operand["shape"])
        if found != wanted:
            raise ValueError(f"{name}: shape of {operand['name']}: expected {list(wanted)}, found {list(found)}")
    _check_limits(contract, symbols)
    return symbols


def shared_input(contract: Mapping[str, Any], output: int) -> int:
    """Index of the input whose buffer that output of the plugin shares, -1 for none."""
    alias = contract["outputs"][output].get("alias", {})
    names = [operand["name"] for operand in contract["inputs"]]
    return names.index(alias["input"]) if alias.get("plugin") == "must" else -1


def _solve(contract: Mapping[str, Any], values: Values, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Every symbol: given by an attribute, read off the first dimension that is nothing else, or derived."""
    derived = {s: text for s, text in contract["symbols"].items() if _is_formula(text, contract["symbols"])}
    symbols = {a["symbol"]: int(values[a["name"]]) for a in contract["attributes"] if "symbol" in a}
    for operand in contract["inputs"]:
        for text, size in zip(operand["shape"], shapes[operand["name"]], strict=True):
            if text in contract["symbols"] and text not in derived:
                symbols.setdefault(text, int(size))
    return symbols | {symbol: formula(text, symbols) for symbol, text in derived.items()}


def _is_formula(text: str, symbols: Mapping[str, str]) -> bool:
    """Whether a symbol's text derives it from other symbols (`H*P`), or describes it (`heads`)."""
    words = re.findall(r"[A-Za-z_]+", text)
    return " " not in text and all(word in symbols for word in words)


def _check_limits(contract: Mapping[str, Any], symbols: Symbols) -> None:
    name = contract["name"]
    for symbol, limit in contract["limits"].items():
        found = symbols[symbol]
        if isinstance(limit, list):
            if not limit[0] <= found <= limit[1]:
                raise ValueError(f"{name}: {symbol}: expected {limit[0]} to {limit[1]}, found {found}")
        elif found % symbols[limit.removeprefix("a multiple of ")]:
            of = symbols[limit.removeprefix("a multiple of ")]
            raise ValueError(f"{name}: {symbol}: expected a multiple of {of}, found {found}")


def formula(text: str, symbols: Symbols) -> int:
    """A sum or difference of products of symbols and numbers, such as 2*H*P+2*G*N+H."""
    total = 0
    for term in text.replace("-", "+-").split("+"):
        sign, factors = (-1, term[1:]) if term.startswith("-") else (1, term)
        total += sign * math.prod(int(f) if f.isdigit() else symbols[f] for f in factors.split("*"))
    return total


def _creator_class(trt: Any) -> Any:
    """The creator's class; its bases exist only once TensorRT is imported."""
    plugin = _plugin_class(trt)

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self, declaration: Declaration) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.declaration, contract = declaration, declaration.contract
            self.failures: list[Exception] = []
            self.name, self.plugin_version, self.plugin_namespace = contract["name"], str(contract["version"]), ""
            self.field_names = trt.PluginFieldCollection(
                [trt.PluginField(a["name"], np.zeros(0), _field_type(trt, a)) for a in contract["attributes"]]
            )

        def shared_input(self, output: int) -> int:
            """Index of the input whose buffer that output of its plugins shares, -1 for none."""
            return shared_input(self.declaration.contract, output)

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            given = {field.name: np.asarray(field.data).reshape(-1)[0] for field in fields if field.name in _ours(self)}
            others = {field.name: None for field in fields if field.name not in _ours(self)}
            return plugin(self.declaration, read_fields(self.declaration, {**given, **others}), self.failures)

    return Creator


def _ours(creator: Any) -> set[str]:
    return {a["name"] for a in creator.declaration.contract["attributes"]}


def _plugin_class(trt: Any) -> Any:
    class Plugin(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuildV2, trt.IPluginV3OneRuntime):  # type: ignore[misc]
        def __init__(self, declaration: Declaration, values: Values, failures: list[Exception]) -> None:
            for base in (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuildV2, trt.IPluginV3OneRuntime):
                base.__init__(self)
            contract = declaration.contract
            self.declaration, self.contract, self.values, self.failures = declaration, contract, values, failures
            self.plugin_name, self.plugin_version = contract["name"], str(contract["version"])
            self.plugin_namespace, self.num_outputs = "", len(contract["outputs"])

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def clone(self) -> Any:
            return Plugin(self.declaration, self.values, self.failures)

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def get_fields_to_serialize(self) -> Any:
            return trt.PluginFieldCollection(
                [
                    trt.PluginField(a["name"], _field_data(a, self.values), _field_type(trt, a))
                    for a in _attributes(self)
                ]
            )

        def get_output_data_types(self, types: list[Any]) -> list[Any]:
            """Type variables take the type of the first input that carries them."""
            first = {i["dtype"]: t for i, t in zip(reversed(self.contract["inputs"]), reversed(types), strict=True)}
            return [first[output["dtype"]] for output in self.contract["outputs"]]

        def get_output_shapes(self, inputs: list[Any], shape_inputs: list[Any], builder: Any) -> list[Any]:
            """Every formula of an output is also a dimension of some input."""
            known: dict[str, Any] = {}
            for operand, dims in zip(self.contract["inputs"], inputs, strict=True):
                for axis, formula in enumerate(operand["shape"]):
                    known.setdefault(formula, dims[axis])
            return [trt.DimsExprs([known[formula] for formula in o["shape"]]) for o in self.contract["outputs"]]

        def supports_format_combination(self, pos: int, described: list[Any], num_inputs: int) -> bool:
            if described[pos].desc.format != trt.TensorFormat.LINEAR:
                return False
            return _allowed(trt, self.contract, pos, [d.desc.type for d in described[: pos + 1]])

        def get_aliased_input(self, output: int) -> int:
            return shared_input(self.contract, output)

        def configure_plugin(self, inputs: Any, outputs: Any) -> None:
            dims = [i.max for i in inputs]
            if all(size >= 0 for d in dims for size in d):
                bind_shapes(self.contract, self.values, dims)

        def set_tactic(self, tactic: int) -> None:
            """There is one way to run it; without this method the build fails."""

        def on_shape_change(self, inputs: Any, outputs: Any) -> None:
            bind_shapes(self.contract, self.values, [i.dims for i in inputs])

        def get_workspace_size(self, inputs: Any, outputs: Any) -> int:
            try:
                return self.declaration.workspace(bind_shapes(self.contract, self.values, [i.max for i in inputs]))
            except Exception as error:
                # TensorRT would take it for a workspace of no bytes and go on: the build asks for these.
                self.failures.append(error)
                raise

    return Plugin


def _attributes(plugin: Any) -> list[dict[str, Any]]:
    attributes: list[dict[str, Any]] = plugin.contract["attributes"]
    return attributes


def _field_type(trt: Any, attribute: Mapping[str, Any]) -> Any:
    return trt.PluginFieldType.INT32 if attribute["type"] == "int" else trt.PluginFieldType.FLOAT32


def _field_data(attribute: Mapping[str, Any], values: Values) -> Any:
    return np.array([values[attribute["name"]]], np.int32 if attribute["type"] == "int" else np.float32)


def _allowed(trt: Any, contract: Mapping[str, Any], pos: int, types: Sequence[Any]) -> bool:
    """Whether tensor `pos`, inputs counted before outputs, may have its type beside those before it."""
    operands = [*contract["inputs"], *contract["outputs"]]
    variable = operands[pos]["dtype"]
    if variable not in contract["types"]:
        return bool(types[pos] == getattr(trt.DataType, TYPES[variable]))
    first = next(i for i, operand in enumerate(operands) if operand["dtype"] == variable)
    if first < pos:
        return bool(types[pos] == types[first])
    activation = next(i for i, operand in enumerate(operands) if operand["dtype"] == "T")
    allowed = [
        types[activation] if t == "T" else getattr(trt.DataType, TYPES[t]) for t in _allowed_names(contract, variable)
    ]
    return types[pos] in allowed


def _allowed_names(contract: Mapping[str, Any], variable: str) -> list[str]:
    names: list[str] = contract["types"][variable]["allowed"]
    return names
