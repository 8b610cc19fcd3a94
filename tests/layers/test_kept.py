"""The kept indices, against the definitions said in another way: reshape to (group, head, channel), take prefixes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.kept import slice_array, sliced_blocks, state_runs, sub_model_name, tensor_runs
from elastic_export.layers.mamba2 import CONV
from elastic_export.runs import Runs, runs_length, runs_shape
from synthetic import NANO_12B, random_architecture, random_budget


def indices(runs: Runs) -> list[int]:
    return [index for start, count in runs for index in range(start, start + count)]


def expected_rows(a: Architecture, b: Budget, k: int) -> dict[str, list[int]]:
    """Kept rows of the ordinal-th Mamba layer's tensors, by labels in the shape (group, head in group, channel)."""
    g, H, P, gN = a.ssm_groups, a.mamba_heads[k], a.mamba_head_dim, a.ssm_groups * a.ssm_state
    di = H * P
    kept_heads, kept_channels = b.mamba_heads[k] // g, b.mamba_head_dim
    inner = np.arange(di).reshape(g, H // g, P)[:, :kept_heads, :kept_channels].ravel()
    heads = np.arange(H).reshape(g, H // g)[:, :kept_heads].ravel()
    b_and_c = np.arange(2 * gN)
    return {
        "inner": inner.tolist(),
        "heads": heads.tolist(),
        "conv": [*inner, *(di + b_and_c)],
        "projected": [*inner, *(di + inner), *(2 * di + b_and_c), *(2 * di + 2 * gN + heads)],
    }


@pytest.mark.parametrize("seed", range(60))
def test_runs_are_the_definitions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = random_architecture(rng)
    b = random_budget(a, rng)
    runs = tensor_runs(a, b)
    hidden = list(range(b.hidden_size))
    assert [indices(axis) for axis in runs["lm_head.weight"]] == [list(range(a.vocab_size)), hidden]
    for index, kind, k in a.layers():
        lead = f"backbone.layers.{index}."
        own = {n.removeprefix(lead + "mixer."): [indices(x) for x in r] for n, r in runs.items() if n.startswith(lead)}
        if index in b.skip_layers:
            assert not own
            continue
        assert own.pop(f"{lead}norm.weight") == [hidden]
        if kind.letter == "M":
            rows, taps = expected_rows(a, b, k), list(range(a.conv_kernel))
            assert own == {
                "in_proj.weight": [rows["projected"], hidden],
                "conv1d.weight": [rows["conv"], [0], taps],
                "conv1d.bias": [rows["conv"]],
                "A_log": [rows["heads"]],
                "D": [rows["heads"]],
                "dt_bias": [rows["heads"]],
                "norm.weight": [rows["inner"]],
                "out_proj.weight": [hidden, rows["inner"]],
            }
        elif kind.letter == "-":
            ffn = list(range(b.ffn_sizes[k]))
            assert own == {"up_proj.weight": [ffn, hidden], "down_proj.weight": [hidden, ffn]}
        else:
            labels = np.arange(a.attention_heads * a.attention_head_dim).reshape(a.kv_heads, -1, a.attention_head_dim)
            queries = labels[:, : b.attention_heads // a.kv_heads].ravel().tolist()
            keys = list(range(a.kv_heads * a.attention_head_dim))
            assert own == {
                "q_proj.weight": [queries, hidden],
                "k_proj.weight": [keys, hidden],
                "v_proj.weight": [keys, hidden],
                "o_proj.weight": [hidden, queries],
            }


@pytest.mark.parametrize("seed", range(60))
def test_shapes_names_and_form_of_the_runs(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    a = random_architecture(rng)
    b = random_budget(a, rng)
    runs = tensor_runs(a, b, "model")
    renamed = {sub_model_name(name, a, b, "model"): runs_shape(axes) for name, axes in runs.items()}
    assert list(renamed.items()) == list(b.architecture(a).tensor_shapes("model").items())
    for name in a.tensor_shapes("model"):
        assert (sub_model_name(name, a, b, "model") is None) == (name not in runs)
    for axes in runs.values():
        for axis in axes:
            assert all(count > 0 for _, count in axis)
            assert all(start + count < after for (start, count), (after, _) in pairwise(axis))


@pytest.mark.parametrize("seed", range(20))
def test_the_full_budget_keeps_everything_in_one_run(seed: int) -> None:
    a = random_architecture(np.random.default_rng(seed))
    for name, axes in tensor_runs(a, Budget.full(a, "full")).items():
        assert axes == tuple(((0, size),) for size in a.tensor_shapes()[name])


def test_a_worked_example() -> None:
    """Two groups of three heads of 4 channels; kept: two heads a group, three channels a head; N = 5."""
    a = replace(NANO_12B, pattern="M", ffn_sizes=(), mamba_heads=(6,), mamba_head_dim=4, ssm_groups=2, ssm_state=5)
    b = replace(Budget.full(a, "b"), mamba_heads=(4,), mamba_head_dim=3)
    rows = tensor_runs(a, b)["backbone.layers.0.mixer.in_proj.weight"][0]
    z = ((0, 3), (4, 3), (12, 3), (16, 3))
    x = ((24, 3), (28, 3), (36, 3), (40, 3))
    assert rows == (*z, *x, (48, 22), (71, 2))  # dt's first heads touch C, so the two runs are one


def test_the_6b_example_has_few_runs() -> None:
    b = replace(Budget.full(NANO_12B, "b"), mamba_heads=(96,) * 28, mamba_head_dim=80)
    rows = tensor_runs(NANO_12B, b)["backbone.layers.0.mixer.in_proj.weight"][0]
    assert rows[:2] == ((0, 960), (1280, 960))
    assert runs_length(rows) == 2 * 96 * 80 + 2 * 8 * 128 + 96


@settings(deadline=None)
@given(st.data())
def test_slicing_is_taking_indices(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    axes = []
    for size in shape:
        kept = sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1)))
        runs: list[tuple[int, int]] = []
        for index in kept:
            if runs and sum(runs[-1]) == index:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((index, 1))
        axes.append(tuple(runs))
    expected = array[np.ix_(*(indices(axis) for axis in axes))]
    sliced = slice_array(array, tuple(axes))
    assert sliced.flags.c_contiguous
    np.testing.assert_array_equal(sliced, expected)
    blocks = list(sliced_blocks(array.__getitem__, tuple(axes), max_bytes=data.draw(st.integers(1, 200))))
    np.testing.assert_array_equal(np.concatenate(blocks), expected)


def test_keeping_all_copies_nothing() -> None:
    array = np.zeros((4, 5))
    assert slice_array(array, (((0, 4),), ((0, 5),))) is array


@pytest.mark.parametrize("seed", range(30))
def test_states_follow_their_layers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = random_architecture(rng)
    b = random_budget(a, rng)
    sub, states = b.architecture(a), state_runs(a, b)
    kept = [(kind, k) for index, kind, k in a.layers() if index not in b.skip_layers]
    mamba, attention = [k for kind, k in kept if kind.letter == "M"], [k for kind, k in kept if kind.letter == "*"]
    assert len(states) == 2 * len(kept) - 2 * sum(kind.letter == "-" for kind, _ in kept)
    for mine, k in enumerate(mamba):
        rows = expected_rows(a, b, k)
        parent_name, (taps, channels) = states[f"conv_state.{mine}"]
        assert (parent_name, indices(channels)) == (f"conv_state.{k}", rows["conv"])
        assert runs_shape((taps, channels)) == (a.conv_kernel - 1, sub.size(CONV, mine))
        parent_name, axes = states[f"ssm_state.{mine}"]
        assert (parent_name, indices(axes[0])) == (f"ssm_state.{k}", rows["heads"])
        assert runs_shape(axes) == (sub.mamba_heads[mine], sub.mamba_head_dim, sub.ssm_state)
    for mine, k in enumerate(attention):
        for cache in ("key_cache", "value_cache"):
            parent_name, axes = states[f"{cache}.{mine}"]
            assert (parent_name, runs_shape(axes)) == (f"{cache}.{k}", (a.kv_heads, a.attention_head_dim))


@pytest.mark.parametrize("seed", range(20))
def test_the_last_indices_are_the_first_of_everything_backwards(seed: int) -> None:
    """Span by span: z, x, B, C and dt of in_proj are five, and each keeps its last heads and channels."""
    rng = np.random.default_rng(seed)
    a = random_architecture(rng)
    b = random_budget(a, rng)
    first, last = tensor_runs(a, b), tensor_runs(a, b, last=True)
    assert first.keys() == last.keys()
    for stored in a.tensors():
        for axis, runs, mirrored in zip(
            stored.tensor.axes, first.get(stored.name, ()), last.get(stored.name, ()), strict=False
        ):
            spans = [a.size((span,), stored.layer.ordinal if stored.layer else 0) for span in axis]
            expected = []
            for start, size in zip(np.cumsum([0, *spans]), spans, strict=False):
                inside = [index for index in indices(runs) if start <= index < start + size]
                expected += sorted(int(2 * start + size - 1 - index) for index in inside)
            assert indices(mirrored) == expected, stored.name
