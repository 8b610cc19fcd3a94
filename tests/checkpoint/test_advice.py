"""No error about an input leaves the reader without a next step."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import elastic_export

PACKAGE = Path(elastic_export.__file__).parent
SOURCES = sorted(path for part in ("checkpoint", "bundle", "cli") for path in (PACKAGE / part).glob("*.py"))


def unadvised(source: str) -> list[int]:
    """Lines that make an InputError without a todo, or with an empty one."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    errors = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "InputError"]
    given = {call: [ast.unparse(k.value) for k in call.keywords if k.arg == "todo"] for call in errors}
    return [call.lineno for call, todo in given.items() if todo in ([], ["''"])]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_input_error_says_what_to_do(path: Path) -> None:
    assert unadvised(path.read_text(encoding="utf-8")) == []


def test_the_search_finds_what_it_is_for() -> None:
    call = 'InputError("x", expected="y", found="z"{})'
    texts = [call.format(more) for more in ("", ', todo=""', ', todo="w"', ", todo=advice")]
    assert unadvised("\n".join(texts)) == [1, 2]
