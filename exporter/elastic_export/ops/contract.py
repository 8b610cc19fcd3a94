"""Reads an op's contract: the one description that PyTorch op, function body, plugins and tests share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import elastic_export
from elastic_export.ops.kernel_limits import read_constants

#: Where an op's kernels state what they can take, beside its contract.
LIMITS = "limits.h"
#: The type variable of activations: the model's dtype.
ACTIVATIONS = "T"


@dataclass(frozen=True)
class Operand:
    """One input or output: `dtype` is a type variable of the contract or a dtype, `shape` a list of formulas."""

    name: str
    dtype: str
    shape: tuple[str, ...]


@dataclass(frozen=True)
class OpContract:
    """An op of domain `elastic` as its `contract.json` states it."""

    domain: str
    name: str
    version: int
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    attributes: dict[str, str]  # name -> "int" | "float", in order
    defaults: dict[str, float]
    types: dict[str, tuple[str, ...]]  # type variable -> dtypes it may stand for; "T" among them means that variable's
    tolerance: dict[str, Any]
    limits: dict[str, tuple[int, int]]  # symbol of the shapes -> smallest and largest size that the kernels take

    def variables(self) -> dict[str, tuple[int, ...]]:
        """Type variable -> positions of the inputs that carry it, in order."""
        return {
            variable: tuple(index for index, operand in enumerate(self.inputs) if operand.dtype == variable)
            for variable in self.types
        }

    def dtype_of(self, name: str) -> str:
        """Type variable or dtype of the input of that name."""
        return next(operand.dtype for operand in self.inputs if operand.name == name)


def plugin_folder() -> Path:
    """The folder of the plugins' sources: inside an installed wheel, or beside `exporter/` in a checkout."""
    package = Path(elastic_export.__file__).parent
    installed = package / "plugins"
    return installed if installed.is_dir() else package.parents[1] / "plugins"


def read_contract(op: str) -> dict[str, Any]:
    """The contract as plain JSON; limits that it gives by name are those of the kernels' header beside it."""
    folder = plugin_folder() / op
    contract: dict[str, Any] = json.loads((folder / "contract.json").read_text(encoding="utf-8"))
    for symbol, limit in contract["limits"].items():
        if isinstance(limit, list):
            contract["limits"][symbol] = [
                size if isinstance(size, int) else read_constants(folder / LIMITS)[size] for size in limit
            ]
    return contract


@cache
def load_contract(op: str) -> OpContract:
    """The contract of the op in folder `op` of the plugins, for instance `mamba2_mixer`."""
    raw = read_contract(op)
    return OpContract(
        domain=raw["domain"],
        name=raw["name"],
        version=raw["version"],
        inputs=tuple(Operand(i["name"], i["dtype"], tuple(i["shape"])) for i in raw["inputs"]),
        outputs=tuple(Operand(o["name"], o["dtype"], tuple(o["shape"])) for o in raw["outputs"]),
        attributes={a["name"]: a["type"] for a in raw["attributes"]},
        defaults={a["name"]: float(a["default"]) for a in raw["attributes"] if "default" in a},
        types={name: tuple(variable["allowed"]) for name, variable in raw["types"].items()},
        tolerance=raw["tolerance"],
        limits={name: (limit[0], limit[1]) for name, limit in raw["limits"].items() if isinstance(limit, list)},
    )
