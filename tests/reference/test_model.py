"""The masked parent: cuts, padding, budgets against sliced models, and the weights that tests are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import slice_array, state_runs, sub_model_name, tensor_runs
from elastic_export.reference import ElasticModel, State, empty_state
from elastic_export.reference.call import Call
from elastic_export.reference.masks import budget_masks
from elastic_export.reference.model import rounding_to
from masked_parent import full_masks, load_reference

EXACT = 1e-12  # float64: the same sums over other block sizes
SEEDS = st.integers(0, 10_000)
examples = settings(max_examples=15, deadline=None, derandomize=True)


def written(name: str, tensor: Tensor, position: Tensor, row: int) -> Tensor:
    """What a state holds of one row: of a cache only the rows before `position`."""
    return tensor[row, :, : int(position[row])] if "cache" in name else tensor[row]


def poisoned(state: State) -> State:
    """Caches full of NaN: nobody may read a row before it is written."""
    return {name: torch.full_like(t, torch.nan) if "cache" in name else t for name, t in state.items()}


@examples
@given(seed=SEEDS)
def test_cuts_ragged_lengths_and_padding_do_not_matter(
    seed: int, model_of: Callable[[int], Any], run: Callable[..., Any], distance: Callable[..., float]
) -> None:
    """Two rows in ragged cuts, with junk behind `length` and NaN in unwritten cache rows, against each row alone."""
    model = model_of(seed)
    reference, masks, rng = model.reference(), model.masks(), model.rng
    lengths = [[int(n) for n in rng.integers(0, 8, 2)] for _ in range(4)] + [[1, 1]]
    calls = [model.ids(2, max(1, *given)) for given in lengths]
    logits, state, position = run(reference, masks, poisoned(model.state(2)), calls, lengths)
    for row in range(2):
        ids = torch.cat([ids[row, : given[row]] for ids, given in zip(calls, lengths, strict=True)])[None]
        alone, its_state, _ = run(reference, masks, model.state(1), [ids], [[ids.shape[1]]])
        assert distance(logits[-1][row], alone[0][0]) <= EXACT
        for name, tensor in state.items():
            expected = written(name, its_state[name], position[row : row + 1], 0)
            assert distance(written(name, tensor, position, row), expected) <= EXACT, name


@pytest.mark.parametrize("seed", range(4))
def test_a_row_of_length_zero_keeps_its_recurrent_states_bit_for_bit(
    seed: int, model_of: Callable[[int], Any], run: Callable[..., Any]
) -> None:
    model = model_of(seed)
    reference, masks = model.reference(), model.masks()
    _, before, _ = run(reference, masks, model.state(2), [model.ids(2, 5)], [[5, 3]])
    _, after = reference(model.ids(2, 4), torch.tensor([5, 3]), torch.tensor([0, 4]), before, masks)
    for name in before:
        kept = written(name, before[name], torch.tensor([5]), 0)
        assert torch.equal(written(name, after[name], torch.tensor([5]), 0), kept), name
        if "ssm" in name:
            assert not torch.equal(before[name][1], after[name][1])


def test_padding_ids_leave_no_trace(model_of: Callable[[int], Any]) -> None:
    """Two calls of one shape, bit for bit: rows of one batch may take other paths through a matrix product."""
    model = model_of(3)
    ids, length = model.ids(2, 6), torch.tensor([4, 4])
    other = ids.clone()
    other[1, 4:] = (other[1, 4:] + 17) % model.arch.vocab_size
    arguments = torch.tensor([0, 0]), length, model.state(2), model.masks()
    (logits, after), (same, too) = (model.reference()(tokens, *arguments) for tokens in (ids, other))
    assert torch.equal(logits, same)
    for name, tensor in after.items():
        for row in range(2):
            assert torch.equal(*(written(name, state, length, row) for state in (tensor, too[name]))), name


def test_state_is_not_modified(model_of: Callable[[int], Any]) -> None:
    model = model_of(2)
    state = model.state(1)
    model.reference()(model.ids(1, 3), torch.tensor([0]), torch.tensor([3]), state, model.masks())
    assert not any(bool(tensor.any()) for tensor in state.values())


def test_every_token_gives_the_logits_of_each_call(
    model_of: Callable[[int], Any], run: Callable[..., Any], distance: Callable[..., float]
) -> None:
    model = model_of(5)
    ids = model.ids(1, 6)
    [every], _, _ = run(model.reference(every_token=True), model.masks(), model.state(1), [ids], [[6]])
    steps, _, _ = run(
        model.reference(), model.masks(), model.state(1), [ids[:, t : t + 1] for t in range(6)], [[1]] * 6
    )
    assert distance(torch.stack(steps, dim=1), every) <= EXACT


def sliced(model: Any) -> tuple[Architecture, ElasticModel]:
    """The sub-model as a model of its own, out of slices made from the definitions."""
    arch: Architecture = model.budget.architecture(model.arch)
    weights = {
        str(sub_model_name(name, model.arch, model.budget)): slice_array(model.weights[name], runs)
        for name, runs in tensor_runs(model.arch, model.budget).items()
    }
    return arch, load_reference(arch, weights.__getitem__, dtype=torch.float64)


def kept_part(model: Any, state: State, name: str) -> Tensor:
    """The part of the parent's states that is the sub-model's state `name`."""
    source, runs = state_runs(model.arch, model.budget)[name]
    tensor = state[source]
    if "cache" in name:
        return tensor
    return torch.from_numpy(slice_array(tensor.numpy(), (((0, tensor.shape[0]),), *runs)).copy())


@settings(max_examples=120, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_masked_parent_is_the_sliced_model(
    seed: int, model_of: Callable[[int], Any], run: Callable[..., Any], distance: Callable[..., float]
) -> None:
    """Must-show 3, second half: float64, 1e-10, logits and every state, random budgets."""
    model = model_of(seed)
    arch, sub = sliced(model)
    calls, lengths = [model.ids(2, 7), model.ids(2, 4), model.ids(2, 1)], [[7, 5], [0, 4], [1, 1]]
    ours, state, position = run(model.reference(), model.masks(), model.state(2), calls, lengths)
    theirs, its_state, _ = run(
        sub, full_masks(arch, torch.float64), empty_state(arch, 2, 40, torch.float64), calls, lengths
    )
    assert distance(ours[0], theirs[0]) <= 1e-10
    assert distance(ours[-1], theirs[-1]) <= 1e-10
    for name, tensor in its_state.items():
        part = kept_part(model, state, name)
        for row in range(2):
            mine, other = written(name, part, position, row), written(name, tensor, position, row)
            assert distance(mine, other) <= 1e-10, name


def test_that_comparison_sees_flat_heads(model_of: Callable[[int], Any], distance: Callable[..., float]) -> None:
    """A flat prefix of heads instead of one inside each group breaks the map from heads to groups."""
    model = next(m for m in map(model_of, range(50)) if cuts_heads(m))
    masks, index = model.masks(), model.arch.pattern.index("M")
    channels = masks[f"channels.{index}"]
    flat = channels[torch.argsort(channels, descending=True, stable=True)]
    shared = torch.ones(2 * model.arch.ssm_groups * model.arch.ssm_state, dtype=torch.float64)
    heads = flat.reshape(-1, model.arch.mamba_head_dim)[:, 0]
    wrong = masks | {f"channels.{index}": flat, f"projected.{index}": torch.cat([flat, flat, shared, heads])}
    arguments = model.ids(1, 5), torch.tensor([0]), torch.tensor([5]), model.state(1)
    right, other = (model.reference()(*arguments, m)[0] for m in (masks, wrong))
    assert not bool(right.isnan().any())
    assert not distance(other, right) <= 1e-3  # NaN too: a group without heads has no mean


def cuts_heads(model: Any) -> bool:
    """Whether the first Mamba layer is kept, has several groups and loses heads."""
    first = model.arch.pattern.find("M")
    if first < 0 or first in model.budget.skip_layers or model.arch.ssm_groups < 2:
        return False
    return bool(model.budget.mamba_heads[0] < model.arch.mamba_heads[0])


@pytest.mark.parametrize("seed", range(20))
def test_deleting_any_layer_moves_the_logits(
    seed: int, model_of: Callable[[int], Any], distance: Callable[..., float]
) -> None:
    """Random weights make every layer matter: without one the logits move by 5 % or more."""
    model = model_of(seed)
    reference, ids = model.reference(torch.float32, every_token=True), model.ids(1, 24)
    arguments = ids, torch.tensor([0]), torch.tensor([24]), model.state(1, torch.float32)
    whole, _ = reference(*arguments, model.full(torch.float32))
    for layer in range(len(model.arch.pattern)):
        budget = replace(Budget.full(model.arch, "without one"), skip_layers=(layer,))
        without, _ = reference(*arguments, budget_masks(model.arch, budget))
        assert distance(without, whole) >= 0.05, (layer, model.arch.pattern)


def test_a_rounding_reaches_whatever_passes_between_ops(
    model_of: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch, distance: Callable[..., float]
) -> None:
    """What a matrix product reads, the states of narrow dtype and the logits fit the dtype that a call rounds to."""
    model, seen, original = model_of(2), [], F.linear
    rounded = {n: torch.from_numpy(w).bfloat16().float().numpy() for n, w in model.weights.items()}
    parent = load_reference(model.arch, rounded.__getitem__)
    arguments = model.ids(1, 9), torch.tensor([0]), torch.tensor([9]), model.state(1, torch.float32)
    masks = model.masks(torch.float32)
    wide, _ = parent(*arguments, masks)

    def recording(x: Tensor, weight: Tensor) -> Tensor:
        seen.append(x)
        return original(x, weight)

    monkeypatch.setattr(F, "linear", recording)
    call = Call(*arguments[1:], masks, rounding_to(torch.bfloat16))
    x = parent.embed(arguments[0], call)
    for layer in parent.body.layers:
        x = layer(x, call)
    logits, state = parent.head(x, call), call.new_state
    kept = [tensor for name, tensor in state.items() if "ssm" not in name]
    assert len(seen) > len(model.arch.pattern)
    for tensor in (*seen, *kept, logits):
        assert torch.equal(tensor, tensor.bfloat16().float())
    assert 1e-4 < distance(logits, wide) < 0.1
    assert any(not torch.equal(t, t.bfloat16().float()) for n, t in state.items() if "ssm" in n)


def test_prefix_and_dtype_of_loaded_weights(model_of: Callable[[int], Any]) -> None:
    model = model_of(1)
    renamed = {name.replace("backbone.", "model."): array for name, array in model.weights.items()}
    loaded = load_reference(model.arch, renamed.__getitem__, prefix="model", dtype=torch.float64)
    assert {name for name, _ in loaded.named_parameters()} == set(renamed)
    assert all(parameter.dtype == torch.float64 for parameter in loaded.parameters())
    assert [tuple(p.shape) for _, p in sorted(loaded.named_parameters())] == [
        shape for _, shape in sorted(model.arch.tensor_shapes("model").items())
    ]


def test_positions_are_needed_in_order_only(model_of: Callable[[int], Any], run: Callable[..., Any]) -> None:
    """Two prompts that differ in one early token differ at the end: state carries what was said."""
    model = model_of(0)
    ids = model.ids(1, 8)
    other = ids.clone()
    other[0, 1] = (other[0, 1] + 1) % model.arch.vocab_size
    last = [
        run(model.reference(), model.masks(), model.state(1), [x[:, a:b] for a, b in pairwise((0, 3, 8))], [[3], [5]])[
            0
        ]
        for x in (ids, other)
    ]
    assert float((last[0][-1] - last[1][-1]).norm() / last[0][-1].norm()) > 1e-6
    assert np.isfinite(last[0][-1].numpy()).all()
