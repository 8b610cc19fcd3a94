"""The table of engines/README.md, what each language does: its names exist, and all that is public is in it."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import elastic_runtime

ENGINES = Path(__file__).parents[1] / "engines"
HEADERS = ENGINES / "cpp" / "include" / "elastic_runtime"
NAME = re.compile(r"`([^`]+)`")
NONE = "–"


def rows() -> list[tuple[str, str, str]]:
    section = (ENGINES / "README.md").read_text("utf-8").split("## Both languages\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(what, python, cpp) for what, python, cpp in cells]


ROWS = rows()


def python_exists(name: str) -> bool:
    """`module.Class.member`, or a name that the package itself exports."""
    parts = name.split(".")
    for size in range(len(parts), -1, -1):
        try:
            found: Any = importlib.import_module(".".join(["elastic_runtime", *parts[:size]]))
        except ImportError:
            continue
        for part in parts[size:]:
            fields = getattr(found, "__dataclass_fields__", {}) if inspect.isclass(found) else {}
            if part not in fields and not hasattr(found, part):
                return False
            found = getattr(found, part, None)
        return True
    return False


def body_of(header: str, name: str) -> str | None:
    """What stands between the braces of a class; None where the header declares none of that name."""
    begun = re.search(rf"^(?:class|struct) {name}\b[^;{{]*\{{", header, re.MULTILINE)
    if begun is None:
        return None
    depth, at = 1, begun.end()
    while depth:
        depth += {"{": 1, "}": -1}.get(header[at], 0)
        at += 1
    return header[begun.end() : at]


def cpp_exists(header: str, name: str) -> bool:
    """`Class::member`, a class, or a function of the header."""
    text = re.sub(r"//.*", "", (HEADERS / header).read_text("utf-8"))
    owner, _, member = name.rpartition("::")
    if owner:
        body = body_of(text, owner)
        return body is not None and re.search(rf"\b{member}\b\s*[(;={{,]", body) is not None
    return body_of(text, name) is not None or re.search(rf"^[\w:<>&*, ]+[ *&]{name}\(", text, re.MULTILINE) is not None


def cpp_names(cell: str) -> list[tuple[str, str]]:
    """(header, name) of a cell: a name is of the header that was named last."""
    header, found = "", []
    for name in NAME.findall(cell):
        if name.endswith(".h"):
            header = name
        else:
            found.append((header, name))
    return found


@pytest.mark.parametrize(("what", "python", "cpp"), ROWS, ids=[row[0] for row in ROWS])
def test_every_name_of_a_row_exists(what: str, python: str, cpp: str) -> None:
    assert what
    assert NAME.search(python) or python.startswith(NONE), python
    assert NAME.search(cpp) or cpp.startswith(NONE), cpp
    assert [name for name in NAME.findall(python) if name != "tokenizers" and not python_exists(name)] == []
    assert [(header, name) for header, name in cpp_names(cpp) if not cpp_exists(header, name)] == []


def test_all_that_is_public_is_in_the_table() -> None:
    named = {name.split(".")[0] for row in ROWS for name in NAME.findall(row[1])}
    named |= {part for row in ROWS for name in NAME.findall(row[1]) for part in name.split(".")}
    assert set(elastic_runtime.__all__) - named == set()
    headers = {header for row in ROWS for header, _ in cpp_names(row[2])}
    helpers = {"fit.h", "mapped_file.h", "plugin_library.h", "sha256.h", "slicing.h"}  # of those that are in it
    assert {path.name for path in HEADERS.glob("*.h")} - headers == helpers


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("session.h", "Session::rewind"), ("session.h", "Sessions::feed"), ("generate.h", "generated"),
        ("tokenizer.h", "ByteTokenizer"), ("session.h", "Session::max_tokens"),
    ],
)  # fmt: skip
def test_a_name_that_is_not_there_is_noticed(header: str, name: str) -> None:
    assert not cpp_exists(header, name)


def test_a_python_name_that_is_not_there_is_noticed() -> None:
    for name in ("Session.rewind", "text.eos.stop_id", "nothing.at.all", "Request.plugins"):
        assert not python_exists(name)
