"""Which ops become plugins in each ops mode, and what an engine needs beside it to run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from elastic_export.dtypes import DTYPES
from elastic_export.layers.architecture import Architecture
from elastic_export.ops.all_ops import SHIPPED
from elastic_export.ops.contract import ACTIVATIONS, LIMITS, plugin_folder
from elastic_export.ops.kernel_limits import read_constants
from elastic_export.ops.op import Op
from elastic_export.products import Product
from elastic_runtime.format.interface import OpsMode, Precision
from elastic_runtime.format.manifest import CarriedLibrary, Plugin

LIBRARY = "libelastic_plugins.so"


@dataclass(frozen=True)
class Misfit:
    """Why a plugin takes no layer of a model: what it takes, and what the model has instead."""

    op: Op
    expected: str
    found: str


def misfits(arch: Architecture, precision: Precision) -> Iterator[Misfit]:
    """Of every op that the model has and whose plugin takes no layer of it, by the contract: the first reason."""
    for op in SHIPPED.values():
        if op.plugin and op.count(arch) and (misfit := _misfit(op, arch, precision)) is not None:
            yield misfit


def _misfit(op: Op, arch: Architecture, precision: Precision) -> Misfit | None:
    contract = op.contract
    allowed = contract.types[ACTIVATIONS]
    if DTYPES[precision].full not in allowed:
        return Misfit(op, f"activations in {' or '.join(allowed)}", precision)
    for symbol, (name, size) in op.plugin_sizes(arch).items():
        least, most = contract.limits[symbol]
        step = _step(op, symbol)
        if not least <= size <= most or size % step:
            multiple = f", a multiple of {step}" if step > 1 else ""
            return Misfit(op, f"{_with_article(name)} of {least} to {most}{multiple}", str(size))
    return None


def _with_article(name: str) -> str:
    """`a state size`, `an attention head size`."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _step(op: Op, symbol: str) -> int:
    """What sizes of that symbol are multiples of: a constant of the kernels' header."""
    constant = op.plugin_steps.get(symbol)
    return 1 if constant is None else read_constants(plugin_folder() / op.folder / LIMITS)[constant]


def plugin_ops(arch: Architecture, precision: Precision) -> tuple[Op, ...]:
    """The ops of a model whose layers are plugins in a plugin engine, in the order of the table."""
    native = {misfit.op for misfit in misfits(arch, precision)}
    return tuple(op for op in SHIPPED.values() if op.plugin and op.count(arch) and op not in native)


def plugins_of(asked: OpsMode, counts: Mapping[str, int], arch: Architecture, precision: Precision) -> dict[str, int]:
    """Which of a sub-model's ops become plugins, and how many nodes of each there are."""
    able = {op.contract.name for op in plugin_ops(arch, precision)} if asked == "plugin" else set()
    return {name: count for name, count in counts.items() if name in able}


def mode_of(plugins: Mapping[str, int]) -> OpsMode:
    """The ops mode of one sub-model: without a layer that a plugin could serve it is native, and needs no library."""
    return "plugin" if plugins else "native"


def creators_of(plugins: Mapping[str, int]) -> dict[str, str]:
    """`module:factory` of the creators that declare those plugins to a build, by op."""
    entries = {name: SHIPPED[name].plugin for name in plugins}
    return {name: entry for name, entry in entries.items() if entry is not None}


def plugin_of(ops: OpsMode, product: Product, version: str, carried: CarriedLibrary | None = None) -> Plugin | None:
    """The library that an engine of that mode needs, the one it carries if it does, and the TensorRT that loads it."""
    if ops == "native":
        return None
    major, minor = version.split(".")[:2]
    return Plugin(LIBRARY, f"{product.abi}-{major}.{minor}", carried)
