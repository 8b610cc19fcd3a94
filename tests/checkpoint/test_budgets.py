"""The budget file: every fault names budget, key, expected and found."""

# ruff: noqa: E501  # a row of a table of messages is read in one line

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_export.checkpoint.budgets import (
    KEYS,
    budgets_document,
    nesting_warnings,
    parse_budgets,
    read_budgets,
    select_budgets,
)
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_runtime.errors import InputError
from synthetic import BUDGETS_12B, NANO_12B, random_architecture, random_budget


def file_of(**budgets: Any) -> dict[str, Any]:
    return {"format": "elastic-budgets/1", "budgets": budgets}


def test_absent_keys_keep_the_parents_value(parent: Architecture) -> None:
    budgets, warnings = parse_budgets(file_of(all_of_it={}), parent, "b.json")
    assert budgets == {"all_of_it": Budget.full(parent, "all_of_it")}
    assert warnings == []


def test_every_key(parent: Architecture) -> None:
    entry = {
        "hidden_size": 20,
        "intermediate_size": [30, 21, 37],
        "mamba_num_heads": 4,
        "mamba_head_dim": 7,
        "num_attention_heads": 4,
        "skip_layers": [7, 3],
    }
    budgets, _ = parse_budgets(file_of(x=entry), parent, "b.json")
    assert set(entry) == set(KEYS)
    assert budgets["x"] == Budget("x", 20, (30, 21, 37), (4, 4, 4), 7, 4, (3, 7))


def test_the_12b_example() -> None:
    budgets, warnings = parse_budgets(BUDGETS_12B, NANO_12B, "b.json")
    parameters = {name: budget.architecture(NANO_12B).parameters() for name, budget in budgets.items()}
    assert parameters == {"12b": 12_310_001_152, "9b": 9_063_866_016, "6b": 4_846_673_152}
    assert warnings == []


@pytest.mark.parametrize("seed", range(40))
def test_what_we_write_we_read(seed: int) -> None:
    rng = np.random.default_rng(seed)
    architecture = random_architecture(rng)
    written = [random_budget(architecture, rng, f"b{i}") for i in range(3)]
    read, _ = parse_budgets(budgets_document(architecture, written), architecture, "b.json")
    assert list(read.values()) == written


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no format": ({"budgets": {"a": {}}}, "b.json, format: expected the text 'elastic-budgets/1', found nothing."),
    "other format": ({"format": "elastic-budgets/2", "budgets": {}}, "b.json, format: expected the text 'elastic-budgets/1', found the text 'elastic-budgets/2'."),
    "unknown top key": (file_of(a={}) | {"budget": {}}, "b.json, budget: expected one of format, budgets, found an unknown key. The nearest is budgets."),
    "proposed a text": (file_of(a={}) | {"proposed": "yes"}, "b.json, proposed: expected an object, found the text 'yes'. Take it out: budgets propose writes it."),
    "no budgets": (file_of(), "b.json, budgets: expected an object with at least one budget, found none."),
    "budgets a list": ({"format": "elastic-budgets/1", "budgets": [1]}, "b.json, budgets: expected an object with at least one budget, found a list of 1."),
    "budget a list": (file_of(a=[]), "b.json, budget 'a': expected an object, found a list of 0."),
    "unknown key": (file_of(a={"hiden_size": 3}), "b.json, budget 'a', hiden_size: expected one of hidden_size, intermediate_size, mamba_num_heads, mamba_head_dim, num_attention_heads, skip_layers, found an unknown key. The nearest is hidden_size."),
    "width 0": (file_of(a={"hidden_size": 0}), "b.json, budget 'a', hidden_size: expected an integer from 1 to the parent's 24, found 0."),
    "width above": (file_of(a={"hidden_size": 25}), "budget 'a', hidden_size: expected an integer from 1 to the parent's 24, found 25."),
    "width true": (file_of(a={"hidden_size": True}), "hidden_size: expected an integer from 1 to the parent's 24, found true."),
    "width null": (file_of(a={"hidden_size": None}), "hidden_size: expected an integer from 1 to the parent's 24, found null."),
    "width a float": (file_of(a={"hidden_size": 20.0}), "hidden_size: expected an integer from 1 to the parent's 24, found 20.0."),
    "hidden list": (file_of(a={"hidden_size": [20]}), "hidden_size: expected an integer from 1 to the parent's 24, found a list of 1."),
    "head dim list": (file_of(a={"mamba_head_dim": [7, 7, 7]}), "mamba_head_dim: expected an integer from 1 to the parent's 12, found a list of 3."),
    "head dim above": (file_of(a={"mamba_head_dim": 13}), "mamba_head_dim: expected an integer from 1 to the parent's 12, found 13."),
    "attention list": (file_of(a={"num_attention_heads": [2, 2]}), "num_attention_heads: expected an integer from 1 to the parent's 6 and a multiple of the 2 KV heads, found a list of 2."),
    "attention indivisible": (file_of(a={"num_attention_heads": 3}), "num_attention_heads: expected an integer from 1 to the parent's 6 and a multiple of the 2 KV heads, found 3."),
    "ffn too short": (file_of(a={"intermediate_size": [30, 30]}), "intermediate_size: expected 3 entries, one a layer of that kind in the parent, found a list of 2."),
    "ffn too long": (file_of(a={"intermediate_size": [30] * 4}), "intermediate_size: expected 3 entries, one a layer of that kind in the parent, found a list of 4."),
    "ffn entry above": (file_of(a={"intermediate_size": [30, 38, 30]}), "intermediate_size[1]: expected an integer from 1 to the parent's 37, found 38."),
    "skipped entry is validated": (file_of(a={"intermediate_size": [0, 30, 30], "skip_layers": [1]}), "intermediate_size[0]: expected an integer from 1 to the parent's 37, found 0."),
    "heads indivisible": (file_of(a={"mamba_num_heads": 3}), "mamba_num_heads: expected an integer from 1 to the parent's 6 and a multiple of the 2 SSM groups, found 3."),
    "heads entry indivisible": (file_of(a={"mamba_num_heads": [6, 6, 5]}), "mamba_num_heads[2]: expected an integer from 1 to the parent's 6 and a multiple of the 2 SSM groups, found 5."),
    "heads entry true": (file_of(a={"mamba_num_heads": [6, 6, True]}), "mamba_num_heads[2]: expected an integer from 1"),
    "skip no list": (file_of(a={"skip_layers": 3}), "skip_layers: expected a list of layer indices, found 3."),
    "skip above": (file_of(a={"skip_layers": [8]}), "skip_layers[0]: expected a layer index from 0 to 7, found 8."),
    "skip negative": (file_of(a={"skip_layers": [-1]}), "skip_layers[0]: expected a layer index from 0 to 7, found -1."),
    "skip true": (file_of(a={"skip_layers": [True]}), "skip_layers[0]: expected a layer index from 0 to 7, found true."),
    "skip twice": (file_of(a={"skip_layers": [3, 1, 3]}), "skip_layers[2]: expected every layer once, found 3 again."),
    "all skipped": (file_of(a={"skip_layers": list(range(8))}), "skip_layers: expected at least one of the 8 layers kept, found all of them skipped."),
    "same but case": (file_of(a={}, A={}), "budget name: expected names that differ by more than upper and lower case, found 'a' and 'A'."),
}  # fmt: skip


@pytest.mark.parametrize(("document", "message"), BAD.values(), ids=BAD)
def test_faults_are_named(parent: Architecture, document: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_budgets(document, parent, "b.json")
    assert message in str(caught.value)
    assert caught.value.todo


NO_FOLDERS = ["", "..", ".", "a/b", "a\\b", "/a", "a,b", "a b", ".a", "-a", "a.", "é", "a\n", "a\0", "x" * 65]
TAKEN = ["all", "ALL", "auto", "weights", "Weights", "manifest.json", "con", "NUL.x", "com1", "tokenizer_x", "LICENSE"]


@pytest.mark.parametrize("name", NO_FOLDERS + TAKEN)
def test_names_that_cannot_be_folders(parent: Architecture, name: str) -> None:
    with pytest.raises(
        InputError, match=r"^b.json, budget name: expected (1 to 64 letters|a name the bundle does not use)"
    ):
        parse_budgets(file_of(**{name: {}}), parent, "b.json")


@pytest.mark.parametrize("name", ["12b", "6b-long.v2", "x" * 64, "allx", "weights2", "console"])
def test_names_that_can(parent: Architecture, name: str) -> None:
    assert list(parse_budgets(file_of(**{name: {}}), parent, "b.json")[0]) == [name]


def test_nesting_is_warned_about(parent: Architecture) -> None:
    entries = {
        "large": {"mamba_num_heads": [6, 6, 4]},
        "small": {"hidden_size": 8, "intermediate_size": 20, "mamba_num_heads": [2, 2, 6], "skip_layers": [3]},
        "tiny": {
            "hidden_size": 8,
            "mamba_head_dim": 1,
            "intermediate_size": 2,
            "mamba_num_heads": 4,
            "skip_layers": [5],
        },
    }
    budgets, warnings = parse_budgets(file_of(**entries), parent, "b.json")
    assert warnings == [
        "budget 'tiny' is not nested in 'small': mamba_num_heads is wider in layers [0]; it keeps layers [3]",
        "budget 'small' is not nested in 'large': mamba_num_heads is wider in layers [5]",
    ]
    assert nesting_warnings(parent, [budgets["large"]]) == []


def test_a_skipped_layers_width_does_not_break_nesting(parent: Architecture) -> None:
    entries = {"large": {"intermediate_size": [20, 37, 37]}, "small": {"hidden_size": 8, "skip_layers": [1]}}
    assert parse_budgets(file_of(**entries), parent, "b.json")[1] == []


def test_selection(parent: Architecture) -> None:
    budgets, _ = parse_budgets(file_of(**{"12b": {}, "9b": {"hidden_size": 20}, "6b": {"hidden_size": 9}}), parent, "b")

    def names(request: str) -> list[str]:
        return [budget.name for budget in select_budgets(budgets, request)]

    assert names("all") == ["12b", "9b", "6b"]
    assert names("6b, 12b") == ["12b", "6b"]
    for request, found in {
        "9B": "'9B' (nearest: 9b, ",
        "6b,": "''",
        "": "''",
        "6b,zzz": "'zzz'",
        "6b,6b": "'6b' twice",
        "all,6b": "'all' among others, and it stands alone. ",
        "6b,all": "'all' among others, and it stands alone. ",
        "all,all": "'all' among others, and it stands alone. ",
    }.items():
        with pytest.raises(InputError) as caught:
            select_budgets(budgets, request)
        assert str(caught.value).startswith("--budget: expected ")
        assert f"found {found}" in str(caught.value)


def test_reading_a_file(tmp_path: Path, parent: Architecture) -> None:
    path = tmp_path / "b.json"
    path.write_text('{"format": "elastic-budgets/1", "budgets": {"a": {}, "a": {}}}')
    with pytest.raises(InputError, match="expected every key once in an object, found the key 'a' twice"):
        read_budgets(path, parent)


JUNK = st.none() | st.booleans() | st.integers(-3, 40) | st.text(max_size=3) | st.lists(st.integers(-2, 40), max_size=5)


@given(st.dictionaries(st.sampled_from(KEYS), JUNK))
def test_any_entry_gives_a_valid_budget_or_an_input_error(entry: dict[str, Any]) -> None:
    parent = NANO_12B
    try:
        budget = parse_budgets(file_of(a=entry), parent, "b")[0]["a"]
    except InputError as error:
        assert str(error).startswith("b, budget 'a'")  # noqa: PT017  # either outcome is right
    else:
        assert 1 <= budget.architecture(parent).parameters() <= parent.parameters()


def test_a_file_that_was_proposed_says_so(parent: Architecture) -> None:
    """Whatever else it says of it is for people."""
    proposed = file_of(a={}, b={"hidden_size": 20})
    plain, warnings = parse_budgets(proposed, parent, "b.json")
    found, more = parse_budgets(proposed | {"proposed": {"note": 3, "else": []}}, parent, "b.json")
    assert found == plain
    assert more == ["b.json: proposed by measuring, not the vendor's budgets", *warnings]
