"""What may import what: each package is a row of rooms, and a module imports from its own room and from those before.

A room is a folder right below the package, or a module there. Imports are read from the sources, wherever they stand:
those inside functions and those under TYPE_CHECKING count as well, for who reads a module has to know what they name.
The package itself (`import elastic_export`, for its version or its folder) is the room `__init__`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"elastic_runtime": ROOT / "engines", "elastic_export": ROOT / "exporter"}
#: First what needs nothing. `dumps` writes what passes leave, so it comes after them.
ROOMS = {
    "elastic_runtime": (
        "errors format fit driver text backend bundle ort tensorrt session sampling generation opening verify cli "
        "__init__"
    ),
    "elastic_export": (
        "__init__ dtypes runs opset products progress layers graph ops checkpoint plan reference trace passes dumps "
        "emit weights verify engine bundle compile cli __main__"
    ),
}
#: EXCEPTIONS: imports that go upward for now. The test fails as soon as one of them is mended and still stands here.
KNOWN = ["elastic_export.weights.modes -> elastic_export.bundle.writer"]
#: Neither knows of the other: each needs packages that are not installed where only the other runs bundles.
STRANGERS = ("elastic_runtime.ort", "elastic_runtime.tensorrt")

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


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_imported_from_a_later_room(package: str) -> None:
    imports, order = imports_of(PACKAGES[package], package), ROOMS[package].split()
    assert sorted({room(module) for module in imports}) == sorted(order)
    known = [each for each in KNOWN if each.startswith(f"{package}.")]
    assert upward(imports, order) == known, "mend what is upward; what no longer is, take off KNOWN"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_and_no_rooms_import_each_other_in_a_circle(package: str) -> None:
    imports = imports_of(PACKAGES[package], package)
    assert circle(imports) == []
    assert circle(rooms_of(imports)) == []


def test_the_runtime_knows_nothing_of_the_exporter() -> None:
    imports = imports_of(PACKAGES["elastic_runtime"], "elastic_runtime")
    assert [m for m, targets in imports.items() if any(t.split(".")[0] == "elastic_export" for t in targets)] == []


def test_the_two_ways_of_running_a_bundle_know_nothing_of_each_other() -> None:
    imports = imports_of(PACKAGES["elastic_runtime"], "elastic_runtime")
    first, second = STRANGERS
    for module, targets in imports.items():
        for own, other in ((first, second), (second, first)):
            assert not (module.startswith(own) and any(t.startswith(other) for t in targets)), module


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return folder


HOUSE = {"house/__init__.py": "", "house/low/__init__.py": "", "house/low/a.py": "x = 1", "house/high.py": ""}


def test_imports_downward_and_within_a_room_are_none_of_these_faults(tmp_path: Path) -> None:
    fine = {"house/low/b.py": "from house.low.a import x\nimport os", "house/high.py": "from house.low import a, b"}
    imports = imports_of(write(tmp_path, HOUSE | fine), "house")
    assert imports["house.high"] == {"house.low.a", "house.low.b"}
    assert upward(imports, ["__init__", "low", "high"]) == []
    assert circle(imports) == circle(rooms_of(imports)) == []


@pytest.mark.parametrize(
    "text",
    [
        "from house import high",
        "from house.high import anything",
        "import house.high",
        "def later():\n    from house.high import anything",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.high import anything",
    ],
)
def test_an_import_upward_is_found_however_it_is_written(tmp_path: Path, text: str) -> None:
    imports = imports_of(write(tmp_path, HOUSE | {"house/low/a.py": text}), "house")
    assert upward(imports, ["__init__", "low", "high"]) == ["house.low.a -> house.high"]


def test_a_circle_is_found_between_rooms_and_within_one(tmp_path: Path) -> None:
    between = {"house/low/a.py": "from house.high import x", "house/high.py": "from house.low.b import x"}
    imports = imports_of(write(tmp_path / "rooms", HOUSE | between | {"house/low/b.py": ""}), "house")
    assert circle(imports) == []  # low.a -> high -> low.b: a circle of folders only
    assert circle(rooms_of(imports)) == ["high", "low", "high"]
    within = {"house/low/a.py": "from house.low.b import x", "house/low/b.py": "from house.low.a import x"}
    imports = imports_of(write(tmp_path / "modules", HOUSE | within), "house")
    assert circle(imports) == ["house.low.a", "house.low.b", "house.low.a"]


def test_a_folder_that_is_in_no_order_is_told(tmp_path: Path) -> None:
    imports = imports_of(write(tmp_path, HOUSE | {"house/attic/a.py": "from house.high import x"}), "house")
    with pytest.raises(ValueError, match="'attic' is not in list"):
        upward(imports, ["__init__", "low", "high"])
