"""The TensorRT declaration of `Mamba2Mixer` in Python: what a build needs of the plugin, read from contract.json.

Name, version, fields, types, shapes and aliases are those that the C++ creator in libelastic_plugins gives, so that an
engine built here, with neither compiler nor SDK, is byte for byte the one built with the library, and runs with it.
There is no `enqueue`: an engine of this declaration runs where the library is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import elastic_export

FLOAT_BYTES = 4
#: TensorRT's DataType by the contract's names.
TYPES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16", "int64": "INT64"}
#: Read by TensorRT's parser itself, whatever the op.
PARSER_FIELDS = ("plugin_version", "plugin_namespace")


def create(trt: Any) -> Any:
    """An IPluginCreatorV3One of `Mamba2Mixer` for the TensorRT module `trt`."""
    return _creator_class(trt)(load_declaration())


def load_declaration() -> dict[str, Any]:
    """The op's contract as plain JSON.

    `elastic_export.reference` reads it too, but imports torch, which a build process does without.
    """
    package = Path(elastic_export.__file__).parent
    installed = package / "plugins"
    folder = installed if installed.is_dir() else package.parents[1] / "plugins"
    contract: dict[str, Any] = json.loads((folder / "mamba2_mixer" / "contract.json").read_text(encoding="utf-8"))
    return contract


def workspace_bytes(*, B: int, T: int, H: int, P: int, G: int, N: int) -> int:
    """Scratch memory of a call, as `plan_decode` and `plan_scan` in select.cpp count it.

    A step keeps the gated y [B, di]; a longer call dt [B, H, T], rounded up to 16 bytes, and x|B|C [B, T, dc].
    """
    if T == 1:
        return FLOAT_BYTES * B * H * P
    steps = -(-B * T * H // 4) * 4
    return FLOAT_BYTES * (steps + B * T * (H * P + 2 * G * N))


def read_fields(contract: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, int | float]:
    """The op's attributes from a node's fields, defaults filled in, in the contract's order.

    Raises:
        ValueError: an attribute is missing, unknown, or out of range; says which, expected and found.
    """
    attributes = {a["name"]: a for a in contract["attributes"]}
    unknown = sorted(set(given) - set(attributes) - set(PARSER_FIELDS))
    if unknown:
        raise ValueError(f"Mamba2Mixer: attributes: expected {', '.join(attributes)}, found {', '.join(unknown)}")
    values: dict[str, int | float] = {}
    for name, attribute in attributes.items():
        if name not in given and "default" not in attribute:
            raise ValueError(f"Mamba2Mixer: attribute {name}: expected a value, found none")
        value = given.get(name, attribute.get("default"))
        values[name] = int(value) if attribute["type"] == "int" else float(value)
    _check_values(contract, values)
    return values


def _check_values(contract: Mapping[str, Any], values: Mapping[str, int | float]) -> None:
    limits = {a["name"]: contract["limits"].get(a["symbol"]) for a in contract["attributes"] if "symbol" in a}
    for name, value in values.items():
        least = 1 if isinstance(value, int) else -math.inf if name.startswith("time_step") else 0
        most = (limits.get(name) or (least, math.inf))[1]
        if math.isnan(value) or not least <= value <= most:
            expected = f"{least} or more" if most == math.inf else f"{least} to {most}"
            raise ValueError(f"Mamba2Mixer: attribute {name}: expected {expected}, found {value}")
    if values["time_step_min"] > values["time_step_max"]:
        expected = f"at most time_step_max {values['time_step_max']}"
        raise ValueError(f"Mamba2Mixer: attribute time_step_min: expected {expected}, found {values['time_step_min']}")


def bind_shapes(contract: Mapping[str, Any], values: Mapping[str, int | float], dims: Sequence[Any]) -> dict[str, int]:
    """The contract's symbols from the dims of the inputs, every dimension checked against its formula.

    Raises:
        ValueError: naming the input, the expected dims and those found.
    """
    shapes = [tuple(d) for d in dims]
    names = [i["name"] for i in contract["inputs"]]
    by_name = dict(zip(names, shapes, strict=True))
    ranks = {i["name"]: len(i["shape"]) for i in contract["inputs"]}
    for name, shape in by_name.items():
        if len(shape) != ranks[name]:
            raise ValueError(f"Mamba2Mixer: rank of {name}: expected {ranks[name]}, found {list(shape)}")
    symbols = {a["symbol"]: int(values[a["name"]]) for a in contract["attributes"] if "symbol" in a}
    symbols |= {"B": by_name["projected"][0], "T": by_name["projected"][1], "H": by_name["A_log"][0]}
    symbols |= {"K": by_name["conv_weight"][2], "di": symbols["H"] * symbols["P"]}
    symbols["dc"] = symbols["di"] + 2 * symbols["G"] * symbols["N"]
    for operand in contract["inputs"]:
        wanted = tuple(_formula(formula, symbols) for formula in operand["shape"])
        if by_name[operand["name"]] != wanted:
            found = list(by_name[operand["name"]])
            raise ValueError(f"Mamba2Mixer: shape of {operand['name']}: expected {list(wanted)}, found {found}")
    _check_limits(contract, symbols)
    return symbols


def shared_input(contract: Mapping[str, Any], output: int) -> int:
    """Index of the input whose buffer that output of the plugin shares, -1 for none."""
    alias = contract["outputs"][output].get("alias", {})
    names = [operand["name"] for operand in contract["inputs"]]
    return names.index(alias["input"]) if alias.get("plugin") == "must" else -1


def _check_limits(contract: Mapping[str, Any], symbols: Mapping[str, int]) -> None:
    for symbol, limit in contract["limits"].items():
        if isinstance(limit, list) and not limit[0] <= symbols[symbol] <= limit[1]:
            raise ValueError(f"Mamba2Mixer: {symbol}: expected {limit[0]} to {limit[1]}, found {symbols[symbol]}")
    if symbols["H"] % symbols["G"]:
        raise ValueError(f"Mamba2Mixer: H: expected a multiple of the {symbols['G']} groups, found {symbols['H']}")


def _formula(text: str, symbols: Mapping[str, int]) -> int:
    """A sum or difference of products of symbols and numbers, such as 2*H*P+2*G*N+H."""
    total = 0
    for term in text.replace("-", "+-").split("+"):
        sign, factors = (-1, term[1:]) if term.startswith("-") else (1, term)
        total += sign * math.prod(int(f) if f.isdigit() else symbols[f] for f in factors.split("*"))
    return total


def _creator_class(trt: Any) -> Any:
    """The creator's class; its bases exist only once TensorRT is imported."""
    plugin = _plugin_class(trt)

    class MixerCreator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self, contract: Mapping[str, Any]) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.contract = contract
            self.name, self.plugin_version, self.plugin_namespace = contract["name"], str(contract["version"]), ""
            self.field_names = trt.PluginFieldCollection(
                [trt.PluginField(a["name"], np.zeros(0), _field_type(trt, a)) for a in contract["attributes"]]
            )

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            given = {field.name: np.asarray(field.data).reshape(-1)[0] for field in fields if field.name in _ours(self)}
            others = {field.name: None for field in fields if field.name not in _ours(self)}
            return plugin(self.contract, read_fields(self.contract, {**given, **others}))

    return MixerCreator


def _ours(creator: Any) -> set[str]:
    return {a["name"] for a in creator.contract["attributes"]}


def _plugin_class(trt: Any) -> Any:
    class Mixer(trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuildV2, trt.IPluginV3OneRuntime):  # type: ignore[misc]
        def __init__(self, contract: Mapping[str, Any], values: Mapping[str, int | float]) -> None:
            for base in (trt.IPluginV3, trt.IPluginV3OneCore, trt.IPluginV3OneBuildV2, trt.IPluginV3OneRuntime):
                base.__init__(self)
            self.contract, self.values = contract, values
            self.plugin_name, self.plugin_version = contract["name"], str(contract["version"])
            self.plugin_namespace, self.num_outputs = "", len(contract["outputs"])

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def clone(self) -> Any:
            return Mixer(self.contract, self.values)

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
            symbols = bind_shapes(self.contract, self.values, [i.max for i in inputs])
            return workspace_bytes(**{name: symbols[name] for name in "BTHPGN"})

    return Mixer


def _attributes(plugin: Any) -> list[dict[str, Any]]:
    attributes: list[dict[str, Any]] = plugin.contract["attributes"]
    return attributes


def _field_type(trt: Any, attribute: Mapping[str, Any]) -> Any:
    return trt.PluginFieldType.INT32 if attribute["type"] == "int" else trt.PluginFieldType.FLOAT32


def _field_data(attribute: Mapping[str, Any], values: Mapping[str, int | float]) -> Any:
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
