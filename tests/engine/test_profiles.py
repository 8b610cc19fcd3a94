"""The two profiles: T = 1, and 1 ≤ T ≤ max_tokens; every input with a dynamic dimension and no other."""

from __future__ import annotations

from dataclasses import replace

from elastic_export.engine.profiles import profiles
from elastic_export.engine.request import EngineRequest


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
