"""Reads the header in which an op's kernels state what they can take, `plugins/<op>/limits.h`.

A line of it is a constant, `constexpr int kMaxState = 256;`, perhaps given by another one, or a formula of the
contract's symbols, `constexpr int64_t workspace_floats(int64_t B, ...) { return B * T * dc + B * T * H; }`.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_CONSTANT = re.compile(r"^constexpr int (\w+) = ([^;]+);", re.MULTILINE)
_FORMULA = re.compile(r"^constexpr int64_t (\w+)\([^)]*\) \{ return ([^;]+); \}$", re.MULTILINE)


@cache
def read_constants(header: Path) -> dict[str, int]:
    """Constants by name.

    Raises:
        KeyError: one is a product of others that stand after it or nowhere.
    """
    constants: dict[str, int] = {}
    for name, text in _CONSTANT.findall(header.read_text(encoding="utf-8")):
        value = 1
        for factor in text.split("*"):
            word = factor.strip()
            value *= int(word) if word.isdigit() else constants[word]
        constants[name] = value
    return constants


@cache
def read_formula(header: Path, name: str) -> str:
    """The formula `name` as contracts spell theirs, such as `B*T*dc+B*T*H`.

    Raises:
        KeyError: there is none of that name on one line.
    """
    formulas: dict[str, str] = dict(_FORMULA.findall(header.read_text(encoding="utf-8")))
    return formulas[name].replace(" ", "")
