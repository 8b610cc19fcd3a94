"""A parsed network as plain values, so that its checks need no TensorRT."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elastic_export.dtypes import OF_TENSORRT
from elastic_runtime.interface import Port

DYNAMIC = -1


@dataclass(frozen=True)
class NetworkFacts:
    """What the parser made of a model.

    Shapes hold ints, -1 where dynamic. `cache_updates` maps the tensor that an in-place cache update reads to the one
    it writes. `plugins` counts layers by plugin op name.
    """

    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    layers: int
    plugins: Mapping[str, int]
    cache_updates: Mapping[str, str]


def describe(trt: Any, network: Any) -> NetworkFacts:
    """Facts of a parsed TensorRT network."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    updates = [layer for layer in layers if layer.type == trt.LayerType.KV_CACHE_UPDATE]
    return NetworkFacts(
        inputs=_ports(network.get_input(i) for i in range(network.num_inputs)),
        outputs=_ports(network.get_output(i) for i in range(network.num_outputs)),
        layers=len(layers),
        plugins=Counter(_plugin_name(trt, layer) for layer in layers if layer.type == trt.LayerType.PLUGIN_V3),
        cache_updates={layer.get_input(0).name: layer.get_output(0).name for layer in updates},
    )


def _ports(tensors: Any) -> dict[str, Port]:
    return {t.name: Port(t.name, OF_TENSORRT.get(t.dtype.name, t.dtype.name), tuple(t.shape)) for t in tensors}


def _plugin_name(trt: Any, layer: Any) -> str:
    layer.__class__ = trt.IPluginV3Layer  # get_layer returns the base class; this is the bindings' downcast
    core = layer.plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
    return str(core.plugin_name)
