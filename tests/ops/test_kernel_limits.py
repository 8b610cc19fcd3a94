"""Constants and formulas read out of a C++ header."""

from __future__ import annotations

from pathlib import Path

import pytest

from elastic_export.ops.contract import LIMITS, plugin_folder, read_contract
from elastic_export.ops.kernel_limits import read_constants, read_formula

HEADER = """#pragma once
constexpr int kAxis = 65535;
constexpr int kTile = 16;  // tokens
constexpr int kMost = kAxis * kTile;
constexpr int64_t floats(int64_t B, int64_t T) { return B * T + 2 * B; }
"""


def written(folder: Path, text: str) -> Path:
    path = folder / LIMITS
    path.write_text(text)
    return path


def test_constants_and_formulas(tmp_path: Path) -> None:
    header = written(tmp_path, HEADER)
    assert read_constants(header) == {"kAxis": 65535, "kTile": 16, "kMost": 65535 * 16}
    assert read_formula(header, "floats") == "B*T+2*B"


@pytest.mark.parametrize("name", ["bytes", "kAxis"])
def test_a_formula_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(KeyError, match=name):
        read_formula(written(tmp_path, HEADER), name)


def test_a_constant_of_another_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="kOther"):
        read_constants(written(tmp_path, "constexpr int kMost = 2 * kOther;\n"))


def test_limits_of_a_contract_are_the_headers() -> None:
    limits, constants = (
        read_contract("mamba2_mixer")["limits"],
        read_constants(plugin_folder() / "mamba2_mixer" / LIMITS),
    )
    assert limits["N"] == [1, constants["kMaxState"]]
    assert limits["K"] == [constants["kMinTaps"], constants["kMaxTaps"]]
