"""Masks of a budget against `slicing.tensor_runs`, the independent statement of what a budget keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from elastic_export.layers.kept import tensor_runs
from elastic_export.reference.masks import mask_sizes
from elastic_export.runs import Runs


def indicator(runs: Runs, size: int) -> np.ndarray[Any, Any]:
    vector = np.zeros(size)
    for start, count in runs:
        vector[start : start + count] = 1
    return vector


@pytest.mark.parametrize("seed", range(12))
def test_masks_are_ones_on_the_kept_runs(seed: int, model_of: Callable[[int], Any]) -> None:
    model = model_of(seed)
    masks, runs = model.masks(), tensor_runs(model.arch, model.budget)
    hidden = runs["lm_head.weight"][1]
    assert list(masks) == list(mask_sizes(model.arch)) == list(model.full())
    np.testing.assert_array_equal(masks["hidden"], indicator(hidden, model.arch.hidden_size))
    kept = {
        "M": ("channels", "out_proj.weight", 1),
        "-": ("ffn", "up_proj.weight", 0),
        "*": ("heads", "q_proj.weight", 0),
    }
    for index, kind, _ in model.arch.layers():
        branch = masks[f"branch.{index}"].numpy()
        if index in model.budget.skip_layers:
            assert not branch.any()
            continue
        np.testing.assert_array_equal(branch, masks["hidden"].numpy())
        mask, tensor, axis = kept[kind.letter]
        rows = runs[f"backbone.layers.{index}.mixer.{tensor}"][axis]
        vector = masks[f"{mask}.{index}"].numpy()
        np.testing.assert_array_equal(vector, indicator(rows, vector.size))
        if kind == "M":
            projected = masks[f"projected.{index}"].numpy()
            rows = runs[f"backbone.layers.{index}.mixer.in_proj.weight"][0]
            np.testing.assert_array_equal(projected, indicator(rows, projected.size))


def test_full_masks_are_ones_in_the_dtype_asked_for(model_of: Callable[[int], Any]) -> None:
    masks = model_of(0).full(torch.float64)
    assert all(mask.dtype == torch.float64 and bool((mask == 1).all()) for mask in masks.values())
