"""A golden run with everything kept, on backends that are right, off, or broken in one place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_runtime.backend import Backend
from elastic_runtime.bringup.replayed import Arrays, judge, replay_kept, save
from elastic_runtime.bringup.results import Found
from elastic_runtime.bundle import Bundle
from elastic_runtime.format.golden import Golden, read_golden
from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.format.sketch import SIZE
from elastic_runtime.ort.open_onnx import open_onnx
from elastic_runtime.verify.replay import BOUNDS

Change = Callable[[dict[str, Any]], None]


class _Changed:
    """A backend whose states are changed before they are seen, and whose logits are."""

    def __init__(self, backend: Backend, states: Change, logits: Callable[[Any], Any]) -> None:
        self._backend, self._states, self._logits = backend, states, logits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def call(self, *given: Any) -> Any:
        return self._logits(np.array(self._backend.call(*given)))

    def states(self) -> dict[str, Any]:
        found = dict(self._backend.states())
        self._states(found)
        return found


@pytest.fixture(scope="module")
def small(demo_bundle: Path) -> tuple[Bundle, BudgetEntry, Golden]:
    bundle = Bundle.open(demo_bundle)
    budget = bundle.budget("small")
    return bundle, budget, read_golden(bundle.path / str(budget.golden))


def _replay(
    small: tuple[Bundle, BudgetEntry, Golden],
    states: Change = lambda found: None,
    logits: Callable[[Any], Any] = lambda found: found,
    *,
    whole: bool = False,
) -> tuple[Found, Arrays]:
    bundle, budget, run = small
    with closing(open_onnx(bundle, budget, context=run.reach, max_tokens=int(run.tokens.max()))) as backend:
        found, arrays = replay_kept(_Changed(backend, states, logits), run, whole_states=whole)
    return found | judge(found, budget, BOUNDS["twin"]), arrays


def test_what_every_call_gave_is_kept(small: tuple[Bundle, BudgetEntry, Golden]) -> None:
    _, budget, run = small
    found, arrays = _replay(small, whole=True)
    assert found["within_bounds"]
    assert found["first_state_beyond"] is None
    assert found["not_finite"] == {}
    assert found["same_ids"] == len(found["calls"]) == int((run.length > 0).sum())
    rows, calls = range(len(run.ids)), range(run.calls)
    for name in (f"logits.{row}.{call}" for row in rows for call in calls):
        assert (arrays[name].dtype, arrays[name].shape) == (np.float16, (budget.widths.vocab_size,))
    states = {entry.name for entry in budget.states}
    assert {f"{state}.{row}.{call}" for state in states for row in rows for call in calls} < arrays.keys()
    assert arrays[f"{min(states)}.0.0"].shape == (SIZE,)
    assert {f"{state}.{row}" for state in states for row in rows} < arrays.keys()


def test_whole_states_are_the_demos_alone(small: tuple[Bundle, BudgetEntry, Golden]) -> None:
    _, budget, _ = small
    _, arrays = _replay(small)
    assert f"{budget.states[0].name}.0" not in arrays


def test_the_first_layer_that_is_off_is_named(small: tuple[Bundle, BudgetEntry, Golden]) -> None:
    _, budget, _ = small
    layers = {entry.name: entry.parent_layer for entry in budget.states}
    first, later = "ssm_state.0", "conv_state.1"  # whose names are in the other order
    assert layers[first] < layers[later]

    def change(found: dict[str, Any]) -> None:
        for name in (first, later):
            found[name] = found[name] * np.float32(1.01)

    found, _ = _replay(small, change)
    assert found["first_state_beyond"] == {"name": first, "parent_layer": layers[first]}
    assert found["worst_state"] == pytest.approx(0.01, rel=0.5)
    assert not found["within_bounds"]


def test_a_state_of_another_name_is_off_by_inf(small: tuple[Bundle, BudgetEntry, Golden]) -> None:
    _, budget, _ = small
    name = budget.states[0].name

    def change(found: dict[str, Any]) -> None:
        found["other_state.0"] = found.pop(name)

    found, _ = _replay(small, change)
    assert found["states"][name] == found["states"]["other_state.0"] == "inf"
    assert not found["within_bounds"]


def test_nan_is_counted_where_it_stands(small: tuple[Bundle, BudgetEntry, Golden]) -> None:
    def change(logits: Any) -> Any:
        logits[0, 3:5] = np.nan
        return logits

    found, arrays = _replay(small, logits=change)
    assert found["not_finite"]["logits.0.0"] == 2
    assert found["calls"][0]["not_finite"] == 2
    assert (found["calls"][0]["off"], found["worst_logits"]) == ("nan", "inf")
    assert not found["within_bounds"]
    assert np.isnan(arrays["logits.0.0"]).sum() == 2


def test_another_likeliest_id_is_told(small: tuple[Bundle, BudgetEntry, Golden]) -> None:
    def change(logits: Any) -> Any:
        logits[0, 7] = 1e5  # inf in float16, which keeps no such number
        return logits

    found, _ = _replay(small, logits=change)
    assert found["calls"][0]["ids"][0] == 7
    assert found["same_ids"] == sum(entry["ids"][1] == 7 for entry in found["calls"])


def test_what_another_mode_gave_bit_for_bit_is_written_once(tmp_path: Path) -> None:
    first = {"a": np.array([1.0, np.nan], np.float16), "b": np.zeros(2, np.float16), "c": np.ones(3)}
    assert save(tmp_path, "eager", first, first="eager") == {"file": "eager.npz"}
    other = {**first, "b": np.array([0.0, -0.0], np.float16), "c": np.ones(3, np.float32)}
    found = save(tmp_path, "lazy", other, first="eager")
    assert found == {"file": "lazy.npz", "others_in": "eager.npz", "differ": ["b", "c"]}
    with np.load(tmp_path / "lazy.npz") as file:
        assert set(file.files) == {"b", "c"}


def test_a_mode_whose_plain_one_crashed_writes_all(tmp_path: Path) -> None:
    assert save(tmp_path, "lazy", {"a": np.zeros(1)}, first="eager") == {"file": "lazy.npz"}
    with np.load(tmp_path / "lazy.npz") as file:
        assert file.files == ["a"]
