"""The parent without each layer, in one walk, against plain models without it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.evaluate import runner
from elastic_export.evaluate.from_checkpoint import sub_model
from elastic_export.evaluate.passage import Passage
from elastic_export.layers.budget import Budget
from elastic_export.progress import Progress
from elastic_export.propose import ranking
from elastic_export.propose.ranking import LayerLoss, layer_losses
from elastic_export.reference import ElasticModel, budget_masks, empty_state
from elastic_runtime.errors import InputError
from masked_parent import load_reference
from sorted_model import ARCH, IDLE, write_sorted

FULL = Budget.full(ARCH, "(parent)")


@pytest.fixture
def cut_finely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens a call and together: windows go over calls, streams over groups."""
    monkeypatch.setattr(runner, "TOGETHER", 50)
    monkeypatch.setattr(ranking, "TOGETHER", 37)
    monkeypatch.setattr(runner, "_CALL", 20)


def losses(checkpoint: Checkpoint, passage: Passage, layers: list[int]) -> dict[int, LayerLoss]:
    return layer_losses(sub_model(checkpoint, FULL), layers, passage, Progress(), 1, "")


def plain(model: ElasticModel, passage: Passage, budget: Budget) -> torch.Tensor:
    """Logits of all scored tokens, float64; windows one by one."""
    masks, found = budget_masks(ARCH, budget), []
    for window in passage.windows:
        ids, zero = torch.from_numpy(window.ids)[None], torch.tensor([0])
        state = empty_state(ARCH, 1, ids.shape[1], torch.float32)
        with torch.inference_mode():
            logits, _ = model(ids, zero, torch.tensor([ids.shape[1]]), state, masks)
        found.append(logits[0, -1 - window.scored : -1].double())
    return torch.cat(found)


@pytest.mark.usefixtures("cut_finely")
def test_each_layer_costs_what_a_model_without_it_says(checkpoint: Checkpoint, passage: Passage) -> None:
    model = load_reference(ARCH, lambda name: np.asarray(checkpoint.read(name), np.float32), every_token=True)
    whole, layers = plain(model, passage, FULL), list(range(len(ARCH.pattern)))
    found = losses(checkpoint, passage, layers)
    assert sorted(found) == layers
    for layer, loss in found.items():
        without = plain(model, passage, replace(FULL, skip_layers=(layer,)))
        mse = float((whole - without).square().sum() / whole.square().sum())
        p, q = whole.log_softmax(-1), without.log_softmax(-1)
        divergence = float((p.exp() * (p - q)).sum(-1).mean())
        assert loss.mse == pytest.approx(mse, rel=1e-4, abs=1e-9)
        assert loss.divergence == pytest.approx(divergence, rel=1e-4, abs=1e-9)
    assert sorted(found, key=lambda layer: found[layer].mse)[:2] == list(IDLE)
    assert all(loss.mse > 1e-3 for layer, loss in found.items() if layer not in IDLE)


def test_a_walk_of_some_layers_says_the_same_of_them(checkpoint: Checkpoint, passage: Passage) -> None:
    every, some = losses(checkpoint, passage, list(range(9))), losses(checkpoint, passage, [3])
    assert some == {3: some[3]}
    assert some[3].mse == pytest.approx(every[3].mse, rel=1e-5)


def test_a_nan_is_named(tmp_path: Path, passage: Passage) -> None:
    name = "backbone.layers.1.mixer.up_proj.weight"

    def spoil(weights: dict[str, Any]) -> None:
        weights[name][-1, -1] = math.nan

    spoilt = Checkpoint.open(write_sorted(tmp_path / "spoilt", spoil), require_budgets=False)
    with pytest.raises(InputError) as error:
        losses(spoilt, passage, [1, 2])
    assert error.value.subject == f"budget (parent), bf16 weights in fp32, tensor {name}"


def test_the_weights_are_read_once(checkpoint: Checkpoint, passage: Passage, monkeypatch: pytest.MonkeyPatch) -> None:
    """For both shares of a walk, a layer after the other."""
    seen = list[int]()
    kept: Callable[..., Any] = Checkpoint.cut

    def noted(self: Checkpoint, name: str, runs: Any) -> Any:
        if ".layers." in name:
            seen.append(int(name.split(".")[2]))
        return kept(self, name, runs)

    monkeypatch.setattr(Checkpoint, "cut", noted)
    losses(checkpoint, passage, list(range(9)))
    assert seen == sorted(seen)
    assert set(seen) == set(range(9))
