"""The rooms of the exporter, in the order that exporter/README.md gives them: each imports from earlier ones only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "exporter" / "README.md"
PACKAGE = ROOT / "exporter" / "elastic_export"


def rooms_of(page: str) -> dict[str, int]:
    """Folders and modules of the package in the table of rooms, and the row that each stands in."""
    section = page.split("\n## The rooms\n", 1)[1].split("\n## ", 1)[0]
    cells = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    return {name: row for row, cell in enumerate(cells) for name in re.findall(r"`(\w+)`", cell)}


def imported(source: str) -> Iterator[str]:
    """The rooms that a file imports from, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "elastic_export":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("elastic_export."):
            yield str(node.module).split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("elastic_export."))


def test_the_page_lists_every_room() -> None:
    entries = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert set(rooms_of(PAGE.read_text(encoding="utf-8"))) == {e for e in entries if not e.startswith("__")}


def test_a_file_imports_only_from_its_own_or_an_earlier_room() -> None:
    rooms = rooms_of(PAGE.read_text(encoding="utf-8"))
    upward = [
        f"{path.relative_to(PACKAGE)} imports from {room}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if (own := path.relative_to(PACKAGE).parts[0].removesuffix(".py")) in rooms
        for room in imported(path.read_text(encoding="utf-8"))
        if rooms.get(room, -1) > rooms[own]
    ]
    assert upward == []


def test_an_import_is_seen_in_each_of_its_forms() -> None:
    source = """
import elastic_export.cli
from elastic_export import plan, __version__
def late():
    from elastic_export.engine.facts import EngineFacts
"""
    assert list(imported(source)) == ["cli", "plan", "__version__", "engine"]
