"""Tensors under other names: an error says which is which, and advises what helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_export.checkpoint.inventory import check_inventory, find_prefix
from elastic_export.checkpoint.renamed import same_tails
from elastic_export.layers.architecture import Architecture
from elastic_runtime.errors import InputError
from small_checkpoint import PARENT


@dataclass(frozen=True)
class Kind:
    """A tensor's header."""

    dtype: str
    shape: tuple[int, ...]


def error_of(arch: Architecture, rename: Callable[[str], str]) -> str:
    found = {
        rename(name): Kind("bf16", shape) for name, shape in arch.tensor_shapes("backbone").items() if rename(name)
    }
    with pytest.raises(InputError) as caught:
        check_inventory("ck", arch, find_prefix(found), found)
    return str(caught.value)


ONE = {
    "the final norm": ("backbone.norm_f.weight", "model.norm_f.weight"),
    "a layer's matrix": ("backbone.layers.1.mixer.up_proj.weight", "model.layers.1.mixer.up_proj.weight"),
    "a layer's vector": ("backbone.layers.0.mixer.A_log", "model.layers.0.mixer.A_log"),
    "the embedding": ("backbone.embeddings.weight", "model.embed_tokens.weight"),
    "the embedding's number": ("backbone.embeddings.weight", "backbone.embedding.weight"),
    "the head": ("lm_head.weight", "model.lm_head.weight"),
    "behind a wrapper": ("backbone.norm_f.weight", "module.backbone.norm_f.weight"),
}


@pytest.mark.parametrize(("ours", "theirs"), ONE.values(), ids=ONE)
def test_one_tensor_of_another_name(parent: Architecture, ours: str, theirs: str) -> None:
    error = error_of(parent, lambda name: theirs if name == ours else name)
    assert f"found missing {ours} ({ours} renamed to {theirs}?); unknown {theirs}. Rename it back." in error


@given(st.lists(st.sampled_from(list(PARENT.tensor_shapes("backbone"))), unique=True, min_size=2, max_size=12))
def test_any_that_came_back_behind_another_prefix(names: list[str]) -> None:
    moved = {name: f"model.{name.removeprefix('backbone.')}" for name in names}
    shapes = PARENT.tensor_shapes("backbone")
    first = next(name for name in shapes if name in moved)
    error = error_of(PARENT, lambda name: moved.get(name, name))
    assert f"({first} renamed to {moved[first]}?, and {len(names) - 1} more so)" in error
    assert error.endswith("Rename them back.")


@pytest.mark.parametrize("lead", ["model.", "language_model.", "module.", "_orig_mod.", "base_model.model."])
def test_all_behind_another_prefix(parent: Architecture, lead: str) -> None:
    error = error_of(parent, lambda name: lead + name)
    assert f"renamed to {lead}backbone.embeddings.weight?, and {len(parent.tensor_shapes()) - 1} more so)" in error
    assert error.endswith("Rename them back.")


def test_two_candidates_are_none() -> None:
    assert same_tails(["backbone.norm_f.weight"], ["a.norm_f.weight", "b.norm_f.weight"]) == {}


def test_a_head_that_is_not_there(parent: Architecture) -> None:
    error = error_of(parent, lambda name: "" if name == "lm_head.weight" else name)
    assert (
        "found missing lm_head.weight. Save the checkpoint with its head: of tied embeddings, a copy of them." in error
    )


def test_a_download_is_advised_where_it_helps(parent: Architecture) -> None:
    error = error_of(parent, lambda name: "" if "layers.3" in name else name)
    assert error.endswith("Download the checkpoint again, or correct the layer pattern in config.json.")
