"""The golden files are what the Python runtime says today; test_build.py holds C++ to the same files."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def cases() -> dict[str, Any]:
    sys.path.insert(0, str(HERE))
    try:
        return runpy.run_path(str(HERE / "golden_cases.py"))
    finally:
        sys.path.remove(str(HERE))


@pytest.fixture(scope="module")
def made(cases: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    files: dict[str, str] = cases["all_files"](tmp_path_factory.mktemp("golden"))
    return files


@pytest.mark.parametrize("name", ["manifest_12b.json", "choose.json", "slices.json", "sampler.json", "errors.json", "session.json", "eos.json"])
def test_the_file_is_what_python_says(cases: dict[str, Any], made: dict[str, str], name: str) -> None:
    assert (cases["FOLDER"] / name).read_text("utf-8") == made[name], (
        "run tests/cpp/golden_cases.py and look at the diff"
    )


def test_every_error_case_says_something(cases: dict[str, Any]) -> None:
    import json

    groups = json.loads((cases["FOLDER"] / "errors.json").read_text("utf-8"))
    refused = [case for group in groups.values() for case in group["cases"] if case["subject"]]
    assert len(refused) > 110
    assert all(case["expected"] and case["found"] for case in refused)


def test_a_seal_below_the_top_level_is_no_traceback() -> None:
    from elastic_runtime.errors import InputError
    from elastic_runtime.manifest_reader import parse_manifest
    from elastic_runtime.seal import EMPTY, seal

    with pytest.raises(InputError, match="the field 'producer'"):
        parse_manifest(seal(f'{{"schema": "elastic-bundle/1", "x": {{"seal": "{EMPTY}"}}}}').encode())
