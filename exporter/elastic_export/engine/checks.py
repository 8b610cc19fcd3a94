"""What must hold of a parsed network and of a built engine. Pure: everything arrives as values.

An engine cannot be deserialised without a driver, so aliasing is read off the network: an in-place cache update shares
the buffer of its input by definition of that layer, a plugin those that it declares to the builder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elastic_export.dtypes import OF_TENSORRT
from elastic_export.engine.request import PROFILE_COUNT, PROFILE_NAMES, EngineRequest
from elastic_export.products import product_of
from elastic_runtime.errors import BuildError, InternalError
from elastic_runtime.format.interface import Dim, Port

DYNAMIC = -1
#: The bounds are estimates from what builds were seen to take: good graphs may be above them, so a user may say so.
KEEP_IT = (
    "where the engine is right for all you know, keep it with --allow-oversize and report it: a weight that the graph"
    " copies or holds as a constant looks like this"
)


@dataclass(frozen=True)
class NetworkFacts:
    """What the parser made of a model.

    Shapes hold ints, -1 where dynamic. `plugins` counts layers by plugin op name, `dequantised` those that dequantise.
    `in_place` pairs every tensor that a
    layer reads with the one it writes into the same buffer, in the order of the layers.
    """

    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    layers: int
    plugins: Mapping[str, int]
    in_place: tuple[tuple[str, str], ...]
    dequantised: int = 0


#: Index of the input whose buffer an output of a plugin shares, -1 for none.
SharedInput = Callable[[int], int]


def describe(trt: Any, network: Any, shared: Mapping[str, SharedInput] | None = None) -> NetworkFacts:
    """Facts of a parsed TensorRT network.

    `shared` answers for the plugins of a library, by op: of a plugin written in C++ the bindings have the method's name
    only, so its contract says which buffers it shares, and tests hold the library to it.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    plugins = [(layer, _plugin(trt, layer)) for layer in layers if layer.type == trt.LayerType.PLUGIN_V3]
    updates = [layer for layer in layers if layer.type == trt.LayerType.KV_CACHE_UPDATE]
    pairs = [(layer.get_input(0).name, layer.get_output(0).name) for layer in updates]
    pairs += [pair for layer, plugin in plugins for pair in _declared_in_place(trt, layer, plugin, shared or {})]
    return NetworkFacts(
        inputs=_ports(network.get_input(i) for i in range(network.num_inputs)),
        outputs=_ports(network.get_output(i) for i in range(network.num_outputs)),
        layers=len(layers),
        plugins=Counter(_plugin_name(trt, plugin) for _, plugin in plugins),
        in_place=tuple(pairs),
        dequantised=sum(layer.type == trt.LayerType.DEQUANTIZE for layer in layers),
    )


def _ports(tensors: Any) -> dict[str, Port]:
    return {t.name: Port(t.name, OF_TENSORRT.get(t.dtype.name, t.dtype.name), tuple(t.shape)) for t in tensors}


def _plugin(trt: Any, layer: Any) -> Any:
    layer.__class__ = trt.IPluginV3Layer  # get_layer returns the base class; this is the bindings' downcast
    return layer.plugin


def _plugin_name(trt: Any, plugin: Any) -> str:
    return str(plugin.get_capability_interface(trt.PluginCapabilityType.CORE).plugin_name)


def _declared_in_place(
    trt: Any, layer: Any, plugin: Any, shared: Mapping[str, SharedInput]
) -> Iterator[tuple[str, str]]:
    """What a plugin written in Python tells the builder itself, the same method of the same object; else its
    contract.
    """
    asked = shared.get(_plugin_name(trt, plugin))
    for index in range(layer.num_outputs):
        if asked is not None:
            source = asked(index)
        else:
            source = aliased_input(plugin.get_capability_interface(trt.PluginCapabilityType.BUILD), index)
        if source >= 0:
            yield layer.get_input(source).name, layer.get_output(index).name


def aliased_input(declaration: Any, output: int) -> int:
    """Index of the input whose buffer that output of a plugin written in Python shares, -1 for none."""
    return int(declaration.get_aliased_input(output))


def check_network(request: EngineRequest, network: NetworkFacts, unused: Sequence[str]) -> None:
    """Check a parsed network against the request: inputs, outputs, shared buffers, plugin layers, dead inputs.

    Raises:
        InternalError: naming the tensor or op at fault. What the network should be is known to the exporter alone:
            neither a checkpoint nor an option can change it.
    """
    _check_ports("input", request, request.network_inputs(), network.inputs)
    # TensorRT may not see the value of a dimension of a state that comes out (-1); what it sees must agree. Of the
    # logits it must see every number: a runtime refuses an engine that does not say how many there are.
    states = {port.output for port in request.states()}
    _check_ports("output", request, request.network_outputs(), network.outputs, unseen=states)
    _check_in_place(request, network)
    _check_plugins(request, network)
    _check_dequantised(request, network)
    _check_used(request, unused)


def in_place_states(request: EngineRequest, network: NetworkFacts) -> dict[str, str]:
    """States whose output is written into the buffer of their input: input -> output, in the order of the ports."""
    return {port.name: port.output for port in request.states() if (port.name, port.output) in network.in_place}


def check_activation(request: EngineRequest, per_profile: Sequence[int]) -> tuple[str, ...]:
    """Check the builder's activation memory, profile by profile, against the bounds of the request.

    Returns:
        What is above a bound, where the request lifts them.

    Raises:
        BuildError: above it, or the log lacks a line per profile (then nobody knows what the engine needs).
    """
    if len(per_profile) != PROFILE_COUNT:
        raise BuildError(
            "builder log",
            expected=f"{PROFILE_COUNT} lines 'Total Activation Memory', one a profile",
            found=str(len(per_profile)),
            todo=f"{product_of(request.flavour).install()}; others word their log differently",
        )
    pairs = zip(PROFILE_NAMES, request.activation_limits or (), per_profile, strict=False)
    above = [
        BuildError(
            f"activation memory of the engine in {name}",
            expected=f"at most {limit} bytes",
            found=str(found),
            todo=f"lower --max-tokens, --max-batch or --max-context; {KEEP_IT}",
        )
        for name, limit, found in pairs
        if found > limit
    ]
    return _lifted(request, above)


def check_size(request: EngineRequest, size: int) -> tuple[str, ...]:
    """Check the bytes of the engine file against the bound of the request.

    Returns:
        What is above the bound, where the request lifts it.

    Raises:
        BuildError: above it.
    """
    if request.size_limit is None or size <= request.size_limit:
        return ()
    error = BuildError(
        "size of the engine",
        expected=f"at most {request.size_limit} bytes where its weights are inputs",
        found=str(size),
        todo=KEEP_IT,
    )
    return _lifted(request, [error])


def _lifted(request: EngineRequest, above: Sequence[BuildError]) -> tuple[str, ...]:
    if above and not request.allow_oversize:
        raise above[0]
    return tuple(f"{e.subject}: expected {e.expected}, found {e.found}, kept by --allow-oversize" for e in above)


def _check_ports(
    role: str,
    request: EngineRequest,
    expected: Mapping[str, Port],
    found: Mapping[str, Port],
    *,
    unseen: Collection[str] = (),
) -> None:
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or extra:
        raise InternalError(
            f"{role}s of the network",
            expected=f"{len(expected)} of the interface",
            found=f"missing {_names(missing)}, unexpected {_names(extra)}",
        )
    for name, port in expected.items():
        want, have = request.fixed(port.shape), found[name]
        if port.dtype != have.dtype or not _same_shape(want, have.shape, exact=name not in unseen):
            raise InternalError(
                f"{role} {name}",
                expected=f"{port.dtype} {_shape(want)}",
                found=f"{have.dtype} {_shape(have.shape)}",
            )


def _same_shape(want: tuple[Dim, ...], have: tuple[Dim, ...], *, exact: bool) -> bool:
    def same(a: Dim, b: Dim) -> bool:
        return b == DYNAMIC if isinstance(a, str) else a == b or (not exact and b == DYNAMIC)

    return len(want) == len(have) and all(map(same, want, have))


def _check_in_place(request: EngineRequest, network: NetworkFacts) -> None:
    """A runtime binds one buffer where the interface says so, and two everywhere else: no other pair may share.

    A cache shares by TensorScatter(axis=2, mode=linear) on the graph's input, a plugin's state by the aliased input
    that the plugin declares.
    """
    must = {port.name: port.output for port in request.states() if port.alias(request.ops) == "must"}
    for name, output in must.items():
        if (found := _partners(network, name)) != [output]:
            raise InternalError(
                name,
                expected=f"to share one buffer with {output}",
                found=f"it shared with {', '.join(found) or 'none'}",
            )
    inputs, outputs = request.network_inputs(), request.network_outputs()
    for name, output in network.in_place:
        if must.get(name) != output and (name in inputs or output in outputs):
            raise InternalError(
                name,
                expected="to share no buffer",
                found=f"it shared with {output}",
            )


def _partners(network: NetworkFacts, name: str) -> list[str]:
    """The tensors that are written into that one's buffer."""
    return sorted({output for source, output in network.in_place if source == name})


def _check_plugins(request: EngineRequest, network: NetworkFacts) -> None:
    expected = request.plugin_ops if request.ops == "plugin" else {}
    if dict(network.plugins) != dict(expected):
        raise InternalError(
            "plugin layers",
            expected=_counts(expected),
            found=f"{_counts(network.plugins)} (a node whose name, version and attributes do not match is inlined)",
        )


def _check_dequantised(request: EngineRequest, network: NetworkFacts) -> None:
    """A weight that the parser dequantises itself, or joins with another, is none that the builder puts into a product:
    its copy in the model's dtype would be scratch memory at each call.
    """
    if network.dequantised != request.dequantised:
        expected, found = f"{request.dequantised} that dequantise a weight each", str(network.dequantised)
        raise InternalError("layers of the network", expected=expected, found=found)


def _check_used(request: EngineRequest, unused: Sequence[str]) -> None:
    # Token inputs may idle (a model without Mamba layers and with all logits never reads `length`).
    must = {port.name for port in (*request.states(), *request.weights)}
    idle = [name for name in unused if name in must]
    if idle:
        raise InternalError(_names(idle), expected="to be read by the graph", found="inputs that nothing reads")


def _names(names: Sequence[str], limit: int = 5) -> str:
    shown = ", ".join(names[:limit]) or "nothing"
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def _shape(shape: tuple[Dim, ...]) -> str:
    return "[" + ", ".join("?" if dim == DYNAMIC else str(dim) for dim in shape) + "]"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {op}" for op, count in sorted(counts.items())) or "none"
