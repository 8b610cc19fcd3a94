"""What is trained is what the product computes: sub-models against the masked reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from importance import layers_by_loss, orders, permuted
from sub_model import SubModel, initial_parameters

from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.layers.budget import Budget
from elastic_export.reference.masks import budget_masks
from elastic_export.reference.model import ElasticModel
from elastic_export.reference.state import empty_state
from small_export import ARCH, SMALL

WIDE = replace(ARCH, pattern="M*-M-", ffn_sizes=(72, 40), attention_heads=8)
CUT = Budget("cut", 40, (48, 40), (4, 8), 8, 4, (3,))
TOKENS = 50  # more than the scan takes one by one


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(w) for name, w in random_weights(WIDE, np.random.default_rng(3)).items()}


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(4).integers(0, WIDE.vocab_size, (2, TOKENS)))


def reference(weights: dict[str, torch.Tensor], budget: Budget, ids: torch.Tensor) -> torch.Tensor:
    model = ElasticModel(WIDE, every_token=True)
    model.load_state_dict(weights)
    start, length = torch.zeros(2, dtype=torch.long), torch.full((2,), TOKENS)
    state = empty_state(WIDE, 2, TOKENS, torch.float32)
    with torch.no_grad():
        logits: torch.Tensor = model(ids, start, length, state, budget_masks(WIDE, budget))[0]
    return logits


@pytest.mark.parametrize("budget", [Budget.full(WIDE, "full"), CUT], ids=lambda budget: budget.name)
def test_the_logits_are_the_reference_s(weights: dict, ids: torch.Tensor, budget: Budget) -> None:
    wanted, found = reference(weights, budget, ids), SubModel(WIDE, budget)(weights, ids)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_another_budget_s_logits_are_others(weights: dict, ids: torch.Tensor) -> None:
    wanted = reference(weights, CUT, ids)
    found = SubModel(WIDE, replace(CUT, mamba_heads=(8, 8)))(weights, ids)
    assert (found - wanted).abs().max() > 1e-2 * wanted.abs().max()


def test_gradients_reach_the_parent_where_the_budget_keeps_it_alone(weights: dict, ids: torch.Tensor) -> None:
    parameters = {name: w.clone().requires_grad_() for name, w in weights.items()}
    SubModel(WIDE, CUT)(parameters, ids).square().sum().backward()
    up = parameters["backbone.layers.2.mixer.up_proj.weight"].grad
    assert up is not None
    assert up[:48, :40].abs().min() > 0
    assert not up[48:].any()
    assert not up[:, 40:].any()
    assert parameters["backbone.layers.3.mixer.D"].grad is None, "a skipped layer"


def test_an_order_changes_no_logit_of_the_whole_and_those_of_a_part(weights: dict, ids: torch.Tensor) -> None:
    order = orders(WIDE, weights, [ids])
    ranked = permuted(WIDE, weights, order)
    whole, part = SubModel(WIDE), SubModel(WIDE, CUT)
    logits = whole(weights, ids)
    assert (whole(ranked, ids) - logits).abs().max() <= 1e-5 * logits.abs().max()
    assert (part(ranked, ids) - part(weights, ids)).abs().max() > 1e-2 * logits.abs().max()


def test_what_matters_most_is_first(ids: torch.Tensor) -> None:
    """Neurons, heads and channels made loud on purpose."""
    weights = initial_parameters(WIDE, 0)
    weights["backbone.layers.2.mixer.up_proj.weight"][7] *= 10
    query = weights["backbone.layers.1.mixer.v_proj.weight"]
    query[16:] *= 10  # the second KV head's: no query head leaves its group for that
    hidden = weights["backbone.embeddings.weight"]
    hidden[:, 11] *= 20
    rows = weights["backbone.layers.0.mixer.in_proj.weight"]
    inner = 8 * 12
    rows[inner + 6 * 12 : inner + 7 * 12] *= 10  # head 6, of the second group
    rows[5 * 12 : 6 * 12] *= 20  # the gate of head 5, which is not what is ranked
    found = {tuple(axis.field for axis in span): (index, order) for (span, index), order in
             orders(WIDE, weights, [ids]).items() if index in (None, 0, 1, 2)}  # fmt: skip
    assert found["hidden_size",][1][0] == 11
    assert found["ffn_sizes",][1][0] == 7
    heads = found["mamba_heads",][1].tolist()
    assert heads[4] == 6
    assert sorted(heads[:4]) == [0, 1, 2, 3]
    queries = found["attention_heads", "attention_head_dim"][1]
    assert queries.max() == 8 * 16 - 1
    assert sorted((queries[: 4 * 16] // 16).unique().tolist()) == [0, 1, 2, 3]


def test_the_layer_that_does_nothing_is_the_first_to_go(weights: dict, ids: torch.Tensor) -> None:
    idle = dict(weights) | {"backbone.layers.2.mixer.down_proj.weight": torch.zeros(48, 72)}
    (layer, loss), (_, more) = layers_by_loss(WIDE, idle, ids, 2)
    assert (layer, loss) == (2, 0.0)
    assert more > 1e-3


def test_a_published_small_budget_is_cut_as_the_product_cuts_it() -> None:
    own = SubModel(ARCH, SMALL).cut(initial_parameters(ARCH, 0))
    shapes = SMALL.architecture(ARCH).tensor_shapes()
    assert {name: tuple(tensor.shape) for name, tensor in own.items()} == shapes
