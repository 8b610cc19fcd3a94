"""The oracle runs layer by layer: what it gives is what the model gives call by call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from elastic_export.reference import budget_masks, empty_state
from elastic_export.verify import Oracle
from elastic_export.verify.oracle import cut_state, spread_state
from elastic_export.verify.plan import walk
from elastic_export.verify.verify import stored_weight
from elastic_runtime.errors import InputError
from masked_parent import load_reference


@pytest.mark.parametrize("every_token", [False, True])
def test_layers_first_equals_calls_first(compiled: Any, every_token: bool) -> None:
    model = compiled("bf16", every_token=every_token)
    plan, arch = model.plan, model.arch
    masks = budget_masks(arch, model.budget)
    answers = Oracle.run(model.oracle, masks, model.emitted.state_slices, plan, every_token=every_token)

    def read(name: str) -> Any:
        return stored_weight(model.checkpoint, name, "bf16").astype(np.float32)

    reference = load_reference(arch, read, every_token=every_token)
    state = empty_state(arch, 2, plan.context, torch.float32)
    ordinals = {index: ordinal for index, _, ordinal in arch.layers()}
    with torch.inference_mode():
        for snapshot, step, (ids, position, length) in zip(
            answers, plan.steps, walk(plan, arch.vocab_size), strict=True
        ):
            arguments = (torch.from_numpy(a) for a in (ids, position, length))
            logits, state = reference(*arguments, state, masks)
            for row, count in enumerate(step.length):
                mine, theirs = snapshot.real_logits(row, count), logits[row].numpy()
                theirs = theirs[:count] if every_token else theirs[None][:count]
                np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-4)
            for part in model.emitted.state_slices:
                whole = state[f"{part.kind}.{ordinals[part.layer]}"]
                for row in range(2):
                    mine, theirs = snapshot.states[part.input][row], cut_state(whole[row].numpy(), part)
                    if "cache" in part.input:
                        end = int(position[row]) + step.length[row]
                        mine, theirs = mine[:, :end], theirs[:, :end]
                    np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-4, err_msg=part.input)


def test_an_idle_row_keeps_its_states_bit_for_bit(compiled: Any) -> None:
    model = compiled("bf16")
    answers = model.oracle.run(budget_masks(model.arch, model.budget), model.emitted.state_slices, model.plan)
    idle = [(n, row) for n, step in enumerate(model.plan.steps) for row in range(2) if n and not step.length[row]]
    assert len(idle) >= 2
    for number, row in idle:
        assert not answers[number].logits[row].any()
        for name, state in answers[number].states.items():
            np.testing.assert_array_equal(state[row], answers[number - 1].states[name][row])


def test_weights_are_read_once_each_and_dropped(compiled: Any) -> None:
    model, read = compiled("bf16"), list[str]()

    def reading(name: str) -> Any:
        read.append(name)
        return stored_weight(model.checkpoint, name, "bf16").astype(np.float32)

    oracle = Oracle(model.arch, reading, "backbone")
    plan = replace(model.plan, steps=model.plan.steps[-2:], ids=model.plan.ids[:, :2])
    oracle.run(budget_masks(model.arch, model.budget), model.emitted.state_slices, plan)
    assert sorted(read) == sorted(model.checkpoint.tensors)
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

    def read(name: str) -> Any:
        weight = stored_weight(model.checkpoint, name, "bf16").astype(np.float32)
        return np.full_like(weight, value) if name == tensor else weight

    oracle = Oracle(model.arch, read, "backbone")
    with pytest.raises(InputError, match=text) as caught:
        oracle.run(budget_masks(model.arch, model.budget), model.emitted.state_slices, model.plan)
    assert caught.value.exit_code == 2


def test_cut_and_spread_are_inverse(compiled: Any) -> None:
    for part in compiled("bf16").emitted.state_slices:
        shape = tuple(7 if runs is None else runs[-1][0] + runs[-1][1] + 1 for runs in part.runs[1:])
        whole = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        kept = cut_state(whole, part)
        spread = spread_state(kept, part, shape)
        np.testing.assert_array_equal(cut_state(spread, part), kept)
        assert np.count_nonzero(spread) == kept.size
