"""Must-show 7: one fault in weights.json, in the weights, or the file of another budget, and verification fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from elastic_runtime.format.weights import WeightRecipe

NUMBERS = r"float32: .*logits"
ALL = ("bf16", "fp16", "fp32")


def change_recipe(recipe: WeightRecipe, ending: str, change: Callable[..., Any]) -> WeightRecipe:
    """The recipe with the stored slice of one input changed."""
    found = [item for item in recipe.inputs if item.name.endswith(ending)]
    assert found, ending
    [part] = found[0].parts
    wrong = replace(found[0], parts=(change(part),))
    return replace(recipe, inputs=tuple(wrong if i is found[0] else i for i in recipe.inputs))


def run_shifted(recipe: WeightRecipe) -> WeightRecipe:
    def change(item: Any) -> Any:
        first, (start, count), *rest = item.runs[0]
        return replace(item, runs=((first, (start + 1, count), *rest), item.runs[1]))

    return change_recipe(recipe, "layers.3.mixer.in_proj.weight", change)


def columns_shifted(recipe: WeightRecipe) -> WeightRecipe:
    def change(item: Any) -> Any:
        return replace(item, runs=(item.runs[0], ((1, item.shape[1]),)))

    return change_recipe(recipe, "layers.0.mixer.in_proj.weight", change)


def heads_flat(recipe: WeightRecipe) -> WeightRecipe:
    """The first heads of all instead of the first of each group."""
    for ending in ("A_log", "D", "dt_bias"):
        recipe = change_recipe(
            recipe, f"layers.3.mixer.{ending}", lambda item: replace(item, runs=(((0, item.shape[0]),),))
        )
    return recipe


def norm_channels_flat(recipe: WeightRecipe) -> WeightRecipe:
    return change_recipe(recipe, "layers.0.mixer.norm.weight", lambda i: replace(i, runs=(((0, i.shape[0]),),)))


def swapped(recipe: WeightRecipe, first: str, second: str) -> WeightRecipe:
    (a,) = [item for item in recipe.inputs if item.name.endswith(first)]
    (b,) = [item for item in recipe.inputs if item.name.endswith(second)]
    assert (a.shape, a.parts[0].runs) == (b.shape, b.parts[0].runs)
    other = {a.name: replace(b, name=a.name), b.name: replace(a, name=b.name)}
    return replace(recipe, inputs=tuple(other.get(item.name, item) for item in recipe.inputs))


def keys_and_values_swapped(recipe: WeightRecipe) -> WeightRecipe:
    return swapped(recipe, "layers.1.mixer.k_proj.weight", "layers.1.mixer.v_proj.weight")


def norms_swapped(recipe: WeightRecipe) -> WeightRecipe:
    return swapped(recipe, "layers.0.norm.weight", "layers.1.norm.weight")


def d_and_dt_bias_swapped(recipe: WeightRecipe) -> WeightRecipe:
    return swapped(recipe, "layers.0.mixer.D", "layers.0.mixer.dt_bias")


def embedding_for_the_head(recipe: WeightRecipe) -> WeightRecipe:
    return swapped(recipe, "embeddings.weight", "lm_head.weight")


def channel_dropped(recipe: WeightRecipe) -> WeightRecipe:
    def change(item: Any) -> Any:
        size = item.shape[0] - 1
        return replace(item, shape=(size,), runs=(((0, size),),))

    return change_recipe(recipe, "layers.3.norm.weight", change)


def _one_row_less(item: Any) -> Any:
    rows = item.shape[0] - 1
    return replace(item, shape=(rows, *item.shape[1:]), runs=(((0, rows),), *item.runs[1:]))


def tokens_dropped(recipe: WeightRecipe) -> WeightRecipe:
    return change_recipe(recipe, "lm_head.weight", _one_row_less)


def table_shortened(recipe: WeightRecipe) -> WeightRecipe:
    return change_recipe(recipe, "embeddings.weight", _one_row_less)


def tensor_forgotten(recipe: WeightRecipe) -> WeightRecipe:
    return replace(recipe, inputs=recipe.inputs[:-1])


FAULTS: list[tuple[Any, ...]] = [
    (run_shifted,),
    (columns_shifted,),
    (heads_flat, r"float32: .*ssm_state\.1"),
    (norm_channels_flat,),
    (keys_and_values_swapped, r"float32: .*key_cache\.0"),
    (norms_swapped,),
    (d_and_dt_bias_swapped,),
    (embedding_for_the_head,),
    (
        channel_dropped,
        r"^error: weight backbone\.layers\.3\.norm\.weight: expected \[56\], as in the file, found \[55\]",
    ),
    (tokens_dropped, r"^error: weight lm_head\.weight: expected \[131, 56\], as in the file, found \[130, 56\]"),
    (
        table_shortened,
        r"^error: weight backbone\.embeddings\.weight: expected \[131, 56\], as in the file, found \[130",
    ),
    (tensor_forgotten, r"^error: weights of the model: expected \d+ inputs, found differing \['lm_head\.weight'\]"),
]


def test_a_fault_in_the_recipe_is_caught(
    compiled: Any, outcome: Any, fault: Any, expected: str, precision: str, head_dim: int
) -> None:
    model = compiled(precision, head_dim=head_dim)
    right = model.recipe(model.emitted)
    wrong = fault(right)
    assert wrong != right
    found = outcome(model, model.emitted, model.load(wrong))
    assert re.search(expected, found), found


@pytest.mark.parametrize("precision", ALL)
@pytest.mark.parametrize(
    "ending", ["layers.3.mixer.in_proj.weight", "layers.4.mixer.down_proj.weight", "lm_head.weight"]
)
def test_weights_of_fewer_bits_are_caught(compiled: Any, outcome: Any, precision: str, ending: str) -> None:
    def rounded(array: Any) -> Any:
        """Two bits of the mantissa less; a float32 in BF16."""
        bits = {4: (np.uint32, 0xFFFF0000), 2: (np.uint16, 0xFFFC)}[array.dtype.itemsize]
        return (np.ascontiguousarray(array).view(bits[0]) & bits[0](bits[1])).view(array.dtype)

    model = compiled(precision)
    weights = [
        (name, rounded(a) if name.endswith(ending) else a) for name, a in model.load(model.recipe(model.emitted))
    ]
    assert re.search(r"float32: .*logits", outcome(model, model.emitted, weights))


# --------------------------------------------------------------------------------------------------- another budget


@pytest.mark.parametrize(
    ("skipped", "expected"),
    [
        pytest.param((2, 4), r"^error: model\.onnx: expected 4 sums .*found 3", id="a layer collapsed that stays"),
        pytest.param((), r"^error: model\.onnx: expected 4 sums .*found 5", id="a skipped layer left in"),
        pytest.param((4,), NUMBERS, id="another layer skipped"),
    ],
)
def test_the_file_of_other_layers_is_caught(
    compiled: Any, outcome: Any, skipped: tuple[int, ...], expected: str
) -> None:
    model = compiled("bf16")
    other = replace(model, budget=replace(model.budget, skip_layers=skipped))
    emitted = other.compile()
    found = outcome(model, emitted)
    assert re.search(expected, found), found


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"hidden_size": 55}, id="hidden"),
        pytest.param({"ffn_sizes": (104, 74)}, id="ffn"),
        pytest.param({"attention_heads": 6}, id="attention heads"),
        pytest.param({"mamba_head_dim": 7}, id="head dim"),
    ],
)
def test_the_file_of_other_widths_is_caught(compiled: Any, outcome: Any, change: dict[str, Any]) -> None:
    model = compiled("bf16")
    other = replace(model, budget=replace(model.budget, **change))
    found = outcome(model, other.compile())
    assert re.search(r"float32: .*logits|^error: ", found), found
