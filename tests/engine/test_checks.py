"""Each check of a parsed network against one fault, and against none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from elastic_export.engine.checks import NetworkFacts, check_activation, check_network, check_size
from elastic_export.engine.request import EngineRequest
from elastic_runtime.errors import BuildError, InternalError
from elastic_runtime.format.interface import Dim, Port


def as_parsed(request: EngineRequest, ports: dict[str, Port]) -> dict[str, Port]:
    def dims(shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
        return tuple(-1 if isinstance(dim, str) else dim for dim in request.fixed(shape))

    return {name: Port(name, port.dtype, dims(port.shape)) for name, port in ports.items()}


@pytest.fixture
def good(request_for_small_model: EngineRequest) -> NetworkFacts:
    request = request_for_small_model
    return NetworkFacts(
        inputs=as_parsed(request, request.network_inputs()),
        outputs=as_parsed(request, request.network_outputs()),
        layers=10,
        plugins={},
        in_place=(("key_cache.0", "key_cache_out.0"), ("value_cache.0", "value_cache_out.0")),
    )


def changed(ports: object, name: str, port: Port | None) -> dict[str, Port]:
    kept = {key: value for key, value in dict(ports).items() if key != name}  # type: ignore[call-overload]
    return kept if port is None else {**kept, name: port}


def test_a_network_as_agreed_passes(request_for_small_model: EngineRequest, good: NetworkFacts) -> None:
    check_network(request_for_small_model, good, unused=["length"])


@pytest.mark.parametrize(
    ("name", "port", "text"),
    [
        (
            "position",
            None,
            "inputs of the network: expected 14 of the interface, found missing position, unexpected nothing",
        ),
        ("mask", Port("mask", "bool", (1,)), "found missing nothing, unexpected mask"),
        ("position", Port("position", "int32", (-1,)), r"input position: expected int64 \[B\], found int32 \[\?\]"),
        ("up", Port("up", "bfloat16", (40, -1)), r"input up: expected bfloat16 \[40, 64\], found bfloat16 \[40, \?\]"),
        (
            "input_ids",
            Port("input_ids", "int64", (1, -1)),
            r"input input_ids: expected int64 \[B, T\], found int64 \[1, \?\]",
        ),
        ("key_cache.0", Port("key_cache.0", "bfloat16", (-1, 2, -1, 16)), r"expected bfloat16 \[B, 2, 32, 16\]"),
    ],
)
def test_inputs(
    request_for_small_model: EngineRequest, good: NetworkFacts, name: str, port: Port | None, text: str
) -> None:
    with pytest.raises(InternalError, match=text):
        check_network(request_for_small_model, replace(good, inputs=changed(good.inputs, name, port)), unused=[])


@pytest.mark.parametrize(
    ("name", "port", "text"),
    [
        ("logits", None, "outputs of the network: .*missing logits"),
        ("logits", Port("logits", "bfloat16", (-1, 48)), r"output logits: expected float32 \[B, 48\], found bfloat16"),
        ("logits", Port("logits", "float32", (-1, -1, 48)), r"found float32 \[\?, \?, 48\]"),
        ("logits", Port("logits", "float32", (2, 48)), r"found float32 \[2, 48\]"),
        ("logits", Port("logits", "float32", (-1, -1)), r"expected float32 \[B, 48\], found float32 \[\?, \?\]"),
        (
            "ssm_state_out.0",
            Port("ssm_state_out.0", "bfloat16", (-1, 4, 16, 8)),
            "output ssm_state_out.0: expected float32",
        ),
    ],
)
def test_outputs(
    request_for_small_model: EngineRequest, good: NetworkFacts, name: str, port: Port | None, text: str
) -> None:
    with pytest.raises(InternalError, match=text):
        check_network(request_for_small_model, replace(good, outputs=changed(good.outputs, name, port)), unused=[])


def test_a_dimension_of_a_state_that_tensorrt_cannot_see_is_no_fault(
    request_for_small_model: EngineRequest, good: NetworkFacts
) -> None:
    blurred = changed(good.outputs, "ssm_state_out.0", Port("ssm_state_out.0", "float32", (-1, 4, -1, 8)))
    check_network(request_for_small_model, replace(good, outputs=blurred), unused=[])


KEY, VALUE = ("key_cache.0", "key_cache_out.0"), ("value_cache.0", "value_cache_out.0")
CONV, SSM = ("conv_state.0", "conv_state_out.0"), ("ssm_state.0", "ssm_state_out.0")


@pytest.mark.parametrize(
    ("ops", "pairs", "text"),
    [
        ("native", (), r"key_cache\.0: expected to share .* with key_cache_out\.0, found .* with none"),
        (
            "native",
            (KEY, (VALUE[0], KEY[1])),
            r"value_cache\.0: expected .* value_cache_out\.0, found .* key_cache_out",
        ),
        ("native", (KEY, VALUE, SSM), r"ssm_state\.0: expected to share no buffer, found .* with ssm_state_out\.0"),
        ("native", (KEY, VALUE, (SSM[0], CONV[1])), r"ssm_state\.0: expected .* no buffer, found .* conv_state_out\.0"),
        ("native", (KEY, VALUE, ("up", "logits")), r"up: expected to share no buffer, found it shared with logits"),
        ("plugin", (KEY, VALUE), r"ssm_state\.0: expected to share one buffer with ssm_state_out\.0, found .* none"),
        ("plugin", (KEY, VALUE, SSM, CONV), r"conv_state\.0: expected to share no buffer, found .* conv_state_out\.0"),
        (
            "plugin",
            (KEY, VALUE, SSM, (KEY[0], "inner")),
            r"key_cache\.0: expected .*, found .* inner, key_cache_out\.0",
        ),
    ],
)
def test_states_must_share_the_buffers_that_the_interface_says(
    request_for_small_model: EngineRequest, good: NetworkFacts, ops: Any, pairs: Any, text: str
) -> None:
    request = replace(request_for_small_model, ops=ops)
    with pytest.raises(InternalError, match=text):
        check_network(request, replace(good, in_place=pairs), unused=[])


def test_a_plugin_that_shares_what_it_must(request_for_small_model: EngineRequest, good: NetworkFacts) -> None:
    inner = ("norm.3", "norm.4")  # between two layers: the builder's own affair
    check_network(replace(request_for_small_model, ops="plugin"), replace(good, in_place=(KEY, VALUE, SSM, inner)), [])


def test_plugins_are_counted(request_for_small_model: EngineRequest, good: NetworkFacts) -> None:
    request = replace(request_for_small_model, ops="plugin", plugin_ops={"Mamba2Mixer": 2})
    check_network(request, replace(good, plugins={"Mamba2Mixer": 2}, in_place=(KEY, VALUE, SSM)), unused=[])
    with pytest.raises(InternalError, match="plugin layers: expected 2 x Mamba2Mixer, found none"):
        check_network(request, replace(good, in_place=(KEY, VALUE, SSM)), unused=[])
    with pytest.raises(InternalError, match="plugin layers: expected none, found 2 x Mamba2Mixer"):
        check_network(request_for_small_model, replace(good, plugins={"Mamba2Mixer": 2}), unused=[])


def test_layers_that_dequantise_are_counted(request_for_small_model: EngineRequest, good: NetworkFacts) -> None:
    request = replace(request_for_small_model, dequantised=3)
    check_network(request, replace(good, dequantised=3), unused=[])
    for found in (0, 2, 4):
        with pytest.raises(InternalError, match=rf"expected 3 that dequantise a weight each, found {found}\."):
            check_network(request, replace(good, dequantised=found), unused=[])


@pytest.mark.parametrize("name", ["up", "ssm_state.0"])
def test_a_weight_or_state_nobody_reads_is_a_fault(
    request_for_small_model: EngineRequest, good: NetworkFacts, name: str
) -> None:
    with pytest.raises(InternalError, match=f"{name}: expected to be read by the graph"):
        check_network(request_for_small_model, good, unused=[name])


def test_activation_memory(request_for_small_model: EngineRequest) -> None:
    check_activation(request_for_small_model, (1 << 40, 5))
    bounded = replace(request_for_small_model, activation_limits=(7, 100))
    check_activation(bounded, (7, 100))
    for found, text in (
        ((8, 100), "decode: expected at most 7 bytes, found 8"),
        ((7, 101), "prefill: .*100.*found 101"),
    ):
        with pytest.raises(BuildError, match=f"activation memory of the engine in {text}"):
            check_activation(bounded, found)
    with pytest.raises(
        BuildError,
        match=r"expected 2 lines 'Total .*', one a profile, found 1\. Install it: pip install 'tensorrt-rtx>=1",
    ):
        check_activation(request_for_small_model, (1,))


def test_size(request_for_small_model: EngineRequest) -> None:
    check_size(request_for_small_model, 1 << 40)
    bounded = replace(request_for_small_model, size_limit=100)
    check_size(bounded, 100)
    with pytest.raises(BuildError, match=r"size of the engine: expected at most 100 bytes where .*, found 101"):
        check_size(bounded, 101)


def test_bounds_that_are_lifted(request_for_small_model: EngineRequest) -> None:
    lifted = replace(request_for_small_model, activation_limits=(7, 100), size_limit=100, allow_oversize=True)
    assert check_activation(lifted, (7, 100)) == check_size(lifted, 100) == ()
    above = (*check_activation(lifted, (8, 101)), *check_size(lifted, 101))
    assert [text.rpartition(", found ")[2] for text in above] == [
        f"{found}, kept by --allow-oversize" for found in (8, 101, 101)
    ]
    with pytest.raises(BuildError, match="one a profile, found 1"):
        check_activation(lifted, (1,))
