"""What may import what: each package is a row of rooms, and a module imports from its own room and from those before.

A room is a folder right below the package, or a module there. Imports are read from the sources, wherever they stand:
those inside functions and those under TYPE_CHECKING count as well, for who reads a module has to know what they name.
The package itself (`import elastic_export`, for its version or its folder) is the room `__init__`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = {"elastic_runtime": ROOT / "engines", "elastic_export": ROOT / "exporter"}


def page_rooms(page: str) -> list[str]:
    """The rooms of the table under "The rooms" of exporter/README.md, in its order."""
    section = page.split("\n## The rooms\n", 1)[1].split("\n## ", 1)[0]
    cells = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


#: First what needs nothing. The exporter's order is told to people on its page and read from there.
ROOMS = {
    "elastic_runtime": [
        "errors",
        "signals",
        "cache_home",
        "format",
        "fit",
        "driver",
        "text",
        "backend",
        "bundle",
        "ort",
        "tensorrt",
        "snapshot",
        "hold",
        "token_ids",
        "session",
        "prefix",
        "sampling",
        "generation",
        "session_request",
        "opening",
        "verify",
        "bringup",
        "cli",
        "__init__",
    ],
    "elastic_export": ["__init__", *page_rooms((ROOT / "exporter" / "README.md").read_text("utf-8")), "__main__"],
}

Imports = dict[str, set[str]]  # module -> modules


def imports_of(root: Path, package: str) -> Imports:
    """What every module of a package imports of it, or of a package beside it under the same names."""
    files = {".".join(_parts(path, root)): path for path in sorted((root / package).rglob("*.py"))}
    return {name: set(_imported(ast.parse(path.read_text("utf-8")), files)) for name, path in files.items()}


def _parts(path: Path, root: Path) -> tuple[str, ...]:
    parts = path.relative_to(root).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def _imported(tree: ast.Module, modules: Iterable[str]) -> Iterator[str]:
    """`from a.b import c` imports the module a.b.c where there is one, else a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import, which this does not read"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else str(node.module) for name in names)


def room(module: str) -> str:
    """The room of a module of a package."""
    return module.split(".")[1] if "." in module else "__init__"


def upward(imports: Mapping[str, set[str]], order: list[str]) -> list[str]:
    """`importer -> imported` of every import from a later room; a room that is not in the order is no room."""
    package = next(iter(imports)).split(".")[0]
    found = []
    for module, targets in imports.items():
        for target in sorted(t for t in targets if t.split(".")[0] == package):
            if order.index(room(target)) > order.index(room(module)):
                found.append(f"{module} -> {target}")
    return found


def circle(edges: Mapping[str, set[str]]) -> list[str]:
    """Names that lead round in a circle, the first one again at the end; empty where there is no circle."""
    done: set[str] = set()

    def follow(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for target in sorted(edges.get(name, set()) - {name}):
                if found := follow(target, [*path, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(edges) if (found := follow(name, []))), [])


def rooms_of(imports: Mapping[str, set[str]]) -> Imports:
    """What every room imports of the others."""
    package, edges = next(iter(imports)).split(".")[0], Imports()
    for module, targets in imports.items():
        edges.setdefault(room(module), set()).update(room(t) for t in targets if t.split(".")[0] == package)
    return edges
