"""A golden run repeated, whole or layer by layer: the same verdict, and what is wrong in one element is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from changed_bundle import only_small
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError
from elastic_runtime.format.golden import Golden, read_golden
from elastic_runtime.format.sketch import sketch
from elastic_runtime.ort.open_layered import open_layered
from elastic_runtime.ort.open_onnx import open_onnx
from elastic_runtime.verify.bundle_verification import verify_bundle
from elastic_runtime.verify.replay import BOUNDS, replay, replay_by_layer


def test_layer_by_layer_the_verdict_is_that_on_the_whole_file(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    budget = bundle.budget("small")
    golden = read_golden(bundle.path / str(budget.golden))
    tokens = int(golden.tokens.max())
    backend = open_onnx(bundle, budget, context=golden.reach, max_tokens=tokens, weights="float32")
    assert replay_by_layer(open_layered(bundle, budget), golden, BOUNDS["twin"]) == replay(
        backend, golden, BOUNDS["twin"]
    )


@pytest.mark.parametrize("what", ["logits", "states"])
def test_the_bounds_catch_a_nan_and_a_small_error(demo_bundle: Path, what: str) -> None:
    bundle = Bundle.open(demo_bundle)
    golden = read_golden(bundle.path / "small/golden.safetensors")
    for factor in (1.001, np.nan):
        backend = open_onnx(bundle, bundle.budget("small"), context=256, threads=1)
        states = backend.states
        call = backend.call
        if what == "logits":
            backend.call = lambda *a, call=call, factor=factor: call(*a) * np.float32(factor)  # type: ignore[method-assign]
        else:
            backend.states = lambda states=states, factor=factor: {  # type: ignore[method-assign]
                n: s * np.float32(factor) if n == "conv_state.1" else s for n, s in states().items()
            }
        found = replay(backend, golden, BOUNDS["twin"])
        assert not found.passed
        assert (found.logits > 1e-4 or np.isnan(found.logits)) == (what == "logits")


def test_a_nan_in_one_call_is_not_lost_among_numbers(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    golden = read_golden(bundle.path / "small/golden.safetensors")
    backend = open_onnx(bundle, bundle.budget("small"), context=256, threads=1)
    call, calls = backend.call, list[int]()

    def spoiled(*arguments: object) -> object:
        calls.append(0)
        logits = call(*arguments).copy()  # type: ignore[arg-type]
        return logits * np.nan if len(calls) == 4 else logits

    backend.call = spoiled  # type: ignore[assignment,method-assign]
    found = replay(backend, golden, BOUNDS["twin"])
    assert not found.passed
    assert found.call == 3


def test_a_batch_is_replayed_row_by_row_where_the_backend_takes_one(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    golden = read_golden(bundle.path / "small/golden.safetensors")
    backend = open_onnx(bundle, bundle.budget("small"), context=256, batch=1, threads=1)
    assert len(golden.ids) == 2
    assert replay(backend, golden, BOUNDS["twin"]).passed


def test_golden_runs_beyond_the_backend_are_refused(demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    golden = read_golden(bundle.path / "small/golden.safetensors")
    backend = open_onnx(bundle, bundle.budget("small"), context=20)
    with pytest.raises(BuildError, match="golden run: expected at most 20 tokens of context and 20 a call"):
        replay(backend, golden, BOUNDS["twin"])
    other = Golden(**{**golden.__dict__, "states": {"x": sketch(np.ones(3))}})
    with pytest.raises(BuildError, match="golden run: expected the states of the model, found differing"):
        replay(open_onnx(bundle, bundle.budget("small"), context=256, threads=1), other, BOUNDS["twin"])
    twin = open_layered(bundle, bundle.budget("small"))
    with pytest.raises(BuildError, match="golden run: expected the states of the model, found differing"):
        replay_by_layer(twin, other, BOUNDS["twin"])
    with pytest.raises(BuildError, match="golden run: expected ids from 0 to 263, found others"):
        replay_by_layer(twin, replace(golden, ids=golden.ids + 264), BOUNDS["twin"])


def _weights_of_small(bundle: Path) -> dict[str, Any]:
    inputs: dict[str, Any] = json.loads((bundle / "small/weights.json").read_text())["inputs"]
    return inputs


#: One of each kind of weight, in the pieces at both ends of the file and between them; all but a table's are read
#: whole, so that any element will do.
WEIGHTS = (
    "norm_f.weight",
    "lm_head.weight",
    "A_log",
    "conv1d.weight",
    "in_proj.weight",
    "up_proj.weight",
    "k_proj.weight",
)


@pytest.mark.parametrize(
    ("ending", "value"), [*((w, 30.0) for w in WEIGHTS), ("in_proj.weight", np.nan), ("in_proj.weight", np.inf)]
)
def test_one_wrong_element_of_any_weight_fails_although_its_digest_is_right(
    copy: Path, ending: str, value: float
) -> None:
    """The first element of the last such weight."""
    item = [body for name, body in _weights_of_small(copy).items() if name.endswith(ending)][-1]
    _put(copy, item, [runs[0][0] for runs in item["runs"]], value)
    only_small(copy)
    result = verify_bundle(copy)
    assert not result.damaged
    [outcome] = result.models
    assert outcome.replay
    assert not outcome.replay.passed
    assert result.text().endswith("\nNOT VERIFIED")


def test_a_wrong_row_of_the_table_fails_where_a_token_reads_it(copy: Path) -> None:
    golden = read_golden(copy / "small/golden.safetensors")
    item = next(body for name, body in _weights_of_small(copy).items() if name.endswith("embeddings.weight"))
    read = set(np.unique(golden.ids))
    unread = next(row for row in range(item["shape"][0]) if row not in read)
    _put(copy, item, [unread, 0], np.nan)
    only_small(copy)
    assert verify_bundle(copy).passed
    _put(copy, item, [int(golden.ids[0, 3]), 0], 30.0)
    only_small(copy)
    assert "small/model.onnx: FAILED: logits off by" in verify_bundle(copy).text()


def _put(bundle: Path, item: dict[str, Any], at: list[int], value: float) -> None:
    """Write one element of the parent's tensor, which is bfloat16."""
    index = int(np.ravel_multi_index(at, item["parent_shape"]))
    with (bundle / "small" / item["file"]).resolve().open("r+b") as file:
        file.seek(item["offset"] + 2 * index)
        file.write((np.float32([value]).view(np.uint32) >> 16).astype(np.uint16).tobytes())
