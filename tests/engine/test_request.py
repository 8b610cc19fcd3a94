"""The request survives its way through JSON; its two profiles have every input with a dynamic dimension, no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from closed_form import state_ports
from elastic_export.engine.request import EngineRequest, profiles
from elastic_runtime.format.interface import Port, logits_port, token_ports

SIZES = st.integers(1, 1 << 20)
NAMES = st.text(min_size=1, max_size=20)


@given(
    tokens=SIZES, context=SIZES, batch=SIZES, weights=st.dictionaries(NAMES, SIZES, max_size=4), limit=st.none() | SIZES
)
def test_request_round_trip(tokens: int, context: int, batch: int, weights: dict[str, int], limit: int | None) -> None:
    request = EngineRequest(
        onnx=Path("a/b.onnx"),
        output=Path("c/d.engine"),
        compute_capabilities=("SM86", "SM120"),
        precision="bf16",
        max_tokens=tokens,
        max_context=context,
        max_batch=batch,
        ops="plugin",
        ports=(*token_ports(), *state_ports("bfloat16", mamba=[(4, 8, 2, 4, 4)], attention=[(2, 16)])),
        outputs=(logits_port(7, every_token=True),),
        weights=tuple(Port(name, "bfloat16", (rows, 4)) for name, rows in weights.items()),
        plugin_ops={"Mamba2Mixer": 3},
        plugin_creators={"Mamba2Mixer": "m:f"},
        activation_limits=None if limit is None else (limit, 2 * limit),
        size_limit=limit,
    )
    assert EngineRequest.from_json(request.to_json()) == request


def test_a_states_output_has_the_shape_of_its_input(request_for_small_model: EngineRequest) -> None:
    outputs = request_for_small_model.network_outputs()
    assert outputs["key_cache_out.0"] == Port("key_cache_out.0", "bfloat16", ("B", 2, "S", 16))
    assert next(iter(outputs)) == "logits"
    assert request_for_small_model.fixed(("B", 2, "S", 16)) == ("B", 2, 32, 16)


def test_spans_of_both_profiles(request_for_small_model: EngineRequest) -> None:
    decode, prefill = profiles(request_for_small_model)
    assert decode["input_ids"] == ((1, 1), (2, 1), (2, 1))
    assert prefill["input_ids"] == ((1, 1), (2, 8), (2, 8))
    assert decode["length"] == prefill["length"] == ((1,), (2,), (2,))
    assert prefill["key_cache.0"] == ((1, 2, 32, 16), (2, 2, 32, 16), (2, 2, 32, 16))
    assert "emb" not in decode
    assert set(decode) == set(prefill) == {port.name for port in request_for_small_model.ports}


def test_a_batch_of_one_is_static(request_for_small_model: EngineRequest) -> None:
    _, prefill = profiles(replace(request_for_small_model, max_batch=1, max_tokens=1))
    assert all(low == preferred == high for low, preferred, high in prefill.values())
