"""A parsed network as plain values, so that its checks need no TensorRT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from elastic_export.dtypes import OF_TENSORRT
from elastic_runtime.format.interface import Port

DYNAMIC = -1


@dataclass(frozen=True)
class NetworkFacts:
    """What the parser made of a model.

    Shapes hold ints, -1 where dynamic. `plugins` counts layers by plugin op name. `in_place` pairs every tensor that a
    layer reads with the one it writes into the same buffer, in the order of the layers.
    """

    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    layers: int
    plugins: Mapping[str, int]
    in_place: tuple[tuple[str, str], ...]


def describe(trt: Any, network: Any) -> NetworkFacts:
    """Facts of a parsed TensorRT network."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    plugins = [(layer, _plugin(trt, layer)) for layer in layers if layer.type == trt.LayerType.PLUGIN_V3]
    updates = [layer for layer in layers if layer.type == trt.LayerType.KV_CACHE_UPDATE]
    shared = [(layer.get_input(0).name, layer.get_output(0).name) for layer in updates]
    shared += [pair for layer, plugin in plugins for pair in _declared_in_place(trt, layer, plugin)]
    return NetworkFacts(
        inputs=_ports(network.get_input(i) for i in range(network.num_inputs)),
        outputs=_ports(network.get_output(i) for i in range(network.num_outputs)),
        layers=len(layers),
        plugins=Counter(_plugin_name(trt, plugin) for _, plugin in plugins),
        in_place=tuple(shared),
    )


def _ports(tensors: Any) -> dict[str, Port]:
    return {t.name: Port(t.name, OF_TENSORRT.get(t.dtype.name, t.dtype.name), tuple(t.shape)) for t in tensors}


def _plugin(trt: Any, layer: Any) -> Any:
    layer.__class__ = trt.IPluginV3Layer  # get_layer returns the base class; this is the bindings' downcast
    return layer.plugin


def _plugin_name(trt: Any, plugin: Any) -> str:
    return str(plugin.get_capability_interface(trt.PluginCapabilityType.CORE).plugin_name)


def _declared_in_place(trt: Any, layer: Any, plugin: Any) -> Iterator[tuple[str, str]]:
    """What the plugin tells the builder itself: the same method of the same object."""
    for index in range(layer.num_outputs):
        source = aliased_input(plugin.get_capability_interface(trt.PluginCapabilityType.BUILD), index)
        if source >= 0:
            yield layer.get_input(source).name, layer.get_output(index).name


def aliased_input(declaration: Any, output: int) -> int:
    """Index of the input whose buffer that output of a plugin shares, -1 for none.

    A plugin written in Python answers; of one written in C++ the bindings have the method's name only.
    """
    return int(declaration.get_aliased_input(output))
