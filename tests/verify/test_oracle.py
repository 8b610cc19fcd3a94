"""The oracle runs layer by layer: what it gives is what the model gives call by call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from elastic_export.reference import budget_masks, empty_state
from elastic_export.verify.masked import MaskedParent
from elastic_export.verify.oracle import Oracle, cut_state, spread_state
from elastic_export.verify.plan import walk
from elastic_export.verify.verify import Subject, make_oracle, stored_weight, verify_budgets
from elastic_runtime.errors import InputError
from elastic_runtime.ort.weight_source import Held
from masked_parent import load_reference


def through(oracle: Oracle, model: Any, plan: Any, every_token: bool = False) -> tuple[MaskedParent, list[Any]]:
    """The masked parent of the model's budget after all layers and the head, and its states by call."""
    masks, states = budget_masks(model.arch, model.budget), [dict[str, Any]() for _ in plan.steps]
    with torch.inference_mode():
        parent = MaskedParent(oracle, masks, model.emitted.state_slices, plan, every_token=every_token)
        for index, _, _ in model.arch.layers():
            with oracle.loaded_layer(index) as block:
                parent.layer(block)
            if index in model.budget.kept_layers(model.arch):
                for call, found in enumerate(states):
                    found.update(parent.states(call))
        with oracle.loaded_norm():
            parent.begin_head()
        blocks = [(first, min(50, model.arch.vocab_size - first)) for first in range(0, model.arch.vocab_size, 50)]
        for first, count in blocks:
            parent.head(first, oracle.head_rows(first, count))
        oracle.check_head(parent.logits, blocks)
    return parent, states


@pytest.mark.parametrize("every_token", [False, True])
def test_layers_first_equals_calls_first(compiled: Any, every_token: bool) -> None:
    model = compiled("bf16", every_token=every_token)
    plan, arch = model.plan, model.arch
    parent, answers = through(model.oracle, model, plan, every_token)
    counts = np.array([fed.count if every_token else 1 for fed in parent.fed])
    rows = zip(parent.fed, np.split(parent.logits, counts.cumsum()[:-1]), strict=True)
    mine = {(fed.call, fed.row): logits for fed, logits in rows}

    def read(name: str) -> Any:
        return stored_weight(model.checkpoint, name, "bf16").astype(np.float32)

    reference = load_reference(arch, read, every_token=every_token)
    state, masks = empty_state(arch, 2, plan.context, torch.float32), budget_masks(arch, model.budget)
    ordinals = {index: ordinal for index, _, ordinal in arch.layers()}
    with torch.inference_mode():
        for call, (ids, position, length) in enumerate(walk(plan, arch.vocab_size)):
            arguments = (torch.from_numpy(a) for a in (ids, position, length))
            logits, state = reference(*arguments, state, masks)
            for row, count in enumerate(plan.steps[call].length):
                theirs = logits[row].numpy()
                theirs = theirs[:count] if every_token else theirs[None][:count]
                found = mine.get((call, row), theirs[:0])
                np.testing.assert_allclose(found, theirs, rtol=2e-4, atol=2e-4)
            for part in model.emitted.state_slices:
                whole = state[f"{part.kind}.{ordinals[part.layer]}"]
                for row in range(2):
                    found, theirs = answers[call][part.input][row], cut_state(whole[row].numpy(), part)
                    if "cache" in part.input:
                        end = int(position[row]) + plan.steps[call].length[row]
                        found, theirs = found[:, :end], theirs[:, :end]
                    np.testing.assert_allclose(found, theirs, rtol=2e-4, atol=2e-4, err_msg=part.input)


def test_an_idle_row_keeps_its_states_bit_for_bit(compiled: Any) -> None:
    model = compiled("bf16")
    parent, answers = through(model.oracle, model, model.plan)
    idle = [(n, row) for n, step in enumerate(model.plan.steps) for row in range(2) if n and not step.length[row]]
    assert len(idle) >= 2
    for number, row in idle:
        assert (number, row) not in [(fed.call, fed.row) for fed in parent.fed]
        for name, state in answers[number].items():
            np.testing.assert_array_equal(state[row], answers[number - 1][name][row])


def test_weights_are_read_once_each_and_dropped(compiled: Any) -> None:
    """The head's matrix in blocks; of the embedding the rows of the plan's ids."""
    model, read = compiled("bf16"), list[tuple[str, Any]]()

    def reading(name: str, rows: Any = slice(None)) -> Any:
        read.append((name, rows))
        return stored_weight(model.checkpoint, name, "bf16", rows).astype(np.float32)

    oracle = Oracle(model.arch, reading, "backbone")
    plan = replace(model.plan, steps=model.plan.steps[-2:], ids=model.plan.ids[:, :2])
    through(oracle, model, plan)
    blocks = [rows for name, rows in read if name == "lm_head.weight"]
    assert blocks == [slice(0, 50), slice(50, 100), slice(100, 131)]
    others = sorted(name for name, _ in read if name != "lm_head.weight")
    assert [*others, "lm_head.weight"] == sorted(model.checkpoint.tensors)
    [rows] = [rows for name, rows in read if name == "backbone.embeddings.weight"]
    fed = [plan.ids[0, 0], plan.ids[0, 1], plan.ids[1, 0]]
    assert rows.tolist() == sorted({int(token) for token in fed})
    assert all(p.is_meta for p in oracle._model.parameters())


@pytest.mark.parametrize(
    ("tensor", "value", "text"),
    [
        (
            "backbone.layers.3.mixer.A_log",
            np.nan,
            r"^tensor backbone\.layers\.3\.mixer\.A_log: expected finite",
        ),
        ("backbone.layers.1.norm.weight", np.inf, r"^tensor backbone\.layers\.1\.norm\.weight: expected finite"),
        ("backbone.embeddings.weight", np.nan, r"^tensor backbone\.embeddings\.weight: expected finite"),
        ("lm_head.weight", np.nan, r"^tensor lm_head\.weight: expected finite"),
        ("backbone.layers.4.mixer.up_proj.weight", 1e30, r"^layers\.4 of the reference: expected finite"),
    ],
)
def test_a_reference_that_is_no_number_is_the_checkpoints_fault(
    compiled: Any, tensor: str, value: float, text: str
) -> None:
    model = compiled("bf16")

    def read(name: str, rows: Any = slice(None)) -> Any:
        weight = stored_weight(model.checkpoint, name, "bf16", rows).astype(np.float32)
        return np.full_like(weight, value) if name == tensor else weight

    oracle = Oracle(model.arch, read, "backbone")
    with pytest.raises(InputError, match=text) as caught:
        through(oracle, model, model.plan)
    assert caught.value.exit_code == 2


def test_cut_and_spread_are_inverse(compiled: Any) -> None:
    for part in compiled("bf16").emitted.state_slices:
        shape = tuple(7 if runs is None else runs[-1][0] + runs[-1][1] + 1 for runs in part.runs[1:])
        whole = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        kept = cut_state(whole, part)
        spread = spread_state(kept, part, shape)
        np.testing.assert_array_equal(cut_state(spread, part), kept)
        assert np.count_nonzero(spread) == kept.size


def test_what_was_passed_in_the_end_is_all_there_is(compiled: Any) -> None:
    model = compiled("bf16")
    oracle = make_oracle(model.checkpoint, "bf16")
    assert oracle.passed == 0
    weights = Held(model.load(model.recipe(model.emitted)))
    verify_budgets(oracle, [Subject(model.budget, model.emitted, weights, model.plan)])
    assert oracle.passed == oracle.elements
