"""Tensors that are there under other names: which is which, so that an error can say what to rename."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

#: What follows the words before a network: a layer's tensor, or one of the three around the layers.
_TAIL = re.compile(r"(?:^|\.)(layers\.\d+\..+|embeddings\.weight|norm_f\.weight|lm_head\.weight)$")
#: Other families' names of what stands around the layers.
_AROUND = {
    "embed_tokens.weight": "embeddings.weight",
    "word_embeddings.weight": "embeddings.weight",
    "wte.weight": "embeddings.weight",
    "final_layernorm.weight": "norm_f.weight",
    "final_norm.weight": "norm_f.weight",
    "ln_f.weight": "norm_f.weight",
    "output.weight": "lm_head.weight",
}


def same_tails(missing: Sequence[str], unknown: Iterable[str]) -> dict[str, str]:
    """Missing tensors that are there behind another prefix: `model.norm_f.weight` for `backbone.norm_f.weight`.

    Returns:
        The unknown name by the missing one. Of several candidates none is taken: only a person can know.
    """
    candidates: dict[str, list[str]] = {}
    for name in unknown:
        if tail := _tail(name):
            candidates.setdefault(tail, []).append(name)
    found = {name: candidates.get(_tail(name), []) for name in missing}
    return {name: names[0] for name, names in found.items() if len(names) == 1}


def near_names(missing: Sequence[str], unknown: Sequence[str]) -> dict[str, str]:
    """Missing tensors that are there with a name close by; of a layer's tensors, only one of the same layer."""
    found: dict[str, str] = {}
    for name in missing:
        candidates = [other for other in unknown if layer_of(other) == layer_of(name) and other not in found.values()]
        if near := difflib.get_close_matches(name, candidates, n=1, cutoff=0.8):
            found[name] = near[0]
    return found


def layer_of(name: str) -> str:
    """The number of the layer that a tensor is of; empty for those of no layer."""
    found = re.search(r"\.layers\.(\d+)\.", name)
    return found[1] if found else ""


def in_words(renamed: Mapping[str, str]) -> str:
    """`a renamed to b?`, and how many more."""
    first = next(iter(renamed.items()))
    more = f", and {len(renamed) - 1} more so" if len(renamed) > 1 else ""
    return f"{first[0]} renamed to {first[1]}?{more}"


def _tail(name: str) -> str:
    for other, ours in _AROUND.items():
        if name == other or name.endswith(f".{other}"):
            return ours
    found = _TAIL.search(name)
    return found[1] if found else ""
