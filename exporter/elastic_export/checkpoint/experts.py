"""Mixtures of experts, which other models of the family have and nothing here computes: what they are called."""

from __future__ import annotations

import re
from collections.abc import Iterable

from elastic_runtime.errors import InputError

#: The letter of such a layer in a pattern, and its name in a list of types.
LETTER, TYPE = "E", "moe"
_NAMES = re.compile(r"\.mixer\.(experts\.|shared_experts?\.|gate\.(weight|e_score_correction_bias)$)")


def mixture(subject: str, expected: str) -> InputError:
    """The refusal, by the name of the family."""
    found = "a mixture of experts, as the Nemotron 3 models have (30B-A3B and the nested ones in it)"
    return InputError(subject, expected=expected, found=found, todo="export a dense model of the family")


def of_experts(names: Iterable[str]) -> str:
    """The first name that only a tensor of such a layer has; empty where none does."""
    return next((name for name in names if _NAMES.search(name)), "")
