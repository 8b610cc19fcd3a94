"""The sizes that are asked for: parameters, or bytes of VRAM with caches of a context."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from elastic_export.checkpoint.budgets import check_name
from elastic_export.layers.architecture import Architecture
from elastic_export.plan.eight_bits import Quantise, model_bytes
from elastic_export.plan.reckoning import budget_size
from elastic_runtime.errors import InputError, advised
from elastic_runtime.fit.sizes import parse_size
from elastic_runtime.fit.vram import vram_needed
from elastic_runtime.format.interface import Precision
from elastic_runtime.format.jsonfile import json_type

#: A proposal is no larger than its target, and smaller by no more than this part of it.
TOLERANCE = 0.02
_COUNT = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)([KMB])", re.IGNORECASE)
_FACTORS = {"K": 10**3, "M": 10**6, "B": 10**9}
#: The size of a model, in what its target is given in.
Size = Callable[[Architecture], int]


@dataclass(frozen=True)
class Measure:
    """What a target is of: how the option is called, how models are measured, and how people read the figure."""

    option: str
    of: Size
    text: Callable[[int], str]


@dataclass(frozen=True)
class Target:
    """A size that a budget is to have: at most `limit`, at least `least`."""

    name: str
    limit: int

    @property
    def least(self) -> int:
        """Smaller than this the target is missed."""
        return int(self.limit * (1 - TOLERANCE))


def parameter_measure() -> Measure:
    """By parameters."""
    return Measure("--params", Architecture.parameters, _count_text)


def _count_text(count: int) -> str:
    """As `parse_count` reads it: exact below a million, else to half a percent at worst."""
    if count < 10**6:
        return f"{count / 10**3:.3f}K"
    return f"{count / 10**6:.2f}M" if count < 10**9 else f"{count / 10**9:.2f}B"


def _bytes_text(count: int) -> str:
    """As `parse_size` reads it, to half a percent at worst from a MiB on."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.2f} MiB"


def vram_measure(precision: Precision, context: int, quantise: Quantise = "none") -> Measure:
    """By VRAM of an engine in that precision with caches of `context` tokens, as bundles and `evaluate` reckon it; its
    weights in int8 where that is asked for, of a parent that `check_even` takes.
    """

    def size(arch: Architecture) -> int:
        weights = model_bytes(arch, precision) if quantise == "int8" else None
        return vram_needed(budget_size("", arch, precision, weight_bytes=weights), context=context).total

    return Measure("--vram", size, _bytes_text)


def parse_targets(option: str, text: str, names: str | None) -> list[Target]:
    """The targets of `--params 9B,6B` or `--vram 16GiB,12GiB`, the largest first whatever the order of the request.

    Args:
        option: which of the two.
        text: its value.
        names: of the budgets, in the order of the request; None: the sizes as they were written, in small letters.

    Raises:
        InputError: no size, two that one budget would hit, or names that a bundle could not take.
    """
    words = [word.strip() for word in text.split(",")]
    with advised(f"write {'9B,6B' if option == '--params' else '16GiB,12GiB'}"):
        limits = [parse_count(word) if option == "--params" else parse_size(word, option) for word in words]
    called = [word.lower() for word in words] if names is None else [name.strip() for name in names.split(",")]
    if len(called) != len(words):
        expected, todo = f"{len(words)} names, one a target", "name each budget"
        raise InputError("--names", expected=expected, found=f"{len(called)}", todo=todo)
    for name in called:
        check_name("--names" if names is not None else option, name)
    targets = [Target(name, limit) for name, limit in zip(called, limits, strict=True)]
    targets.sort(key=lambda target: -target.limit)
    for larger, smaller in pairwise(targets):
        if smaller.limit >= larger.least:
            found = f"{larger.name} and {smaller.name}, which one budget would hit"
            expected = f"sizes that are more than {TOLERANCE:.0%} apart"
            raise InputError(option, expected=expected, found=found, todo="leave one of them out")
    if len({name.lower() for name in called}) < len(called):
        todo = "name each budget otherwise"
        raise InputError("--names", expected="every name once", found=", ".join(called), todo=todo)
    return targets


def parse_count(text: str) -> int:
    """Parameters: `9B`, `1.5B`, `310M`. Raises InputError."""
    found = _COUNT.fullmatch(text)
    count = round(float(found[1]) * _FACTORS[found[2].upper()]) if found else 0
    if count < 1:
        raise InputError("--params", expected="a count such as 9B or 310M", found=json_type(text), todo="write 9B,6B")
    return count


def check_targets(targets: Sequence[Target], measure: Measure, smallest: Architecture, parent: Architecture) -> None:
    """Whether budgets can have these sizes. Raises InputError that says from where to where they reach."""
    low, high = measure.of(smallest), measure.of(parent)
    for target in targets:
        if not low <= target.limit <= high:
            expected = f"from {measure.text(low)}, the smallest that is proposed, to {measure.text(high)}, the parent"
            raise InputError(
                f"{measure.option} {target.name}",
                expected=expected,
                found=measure.text(target.limit),
                todo="name a size in between; smaller budgets can be written by hand",
            )
