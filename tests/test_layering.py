"""Both packages keep the order of their rooms (layering.py), and what watches over it finds what it should."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from layering import PACKAGES, ROOMS, circle, imports_of, room, rooms_of, upward

#: Neither knows of the other: each needs packages that are not installed where only the other runs bundles.
STRANGERS = ("elastic_runtime.ort", "elastic_runtime.tensorrt")


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_imported_from_a_later_room(package: str) -> None:
    imports, order = imports_of(PACKAGES[package], package), ROOMS[package]
    assert sorted({room(module) for module in imports}) == sorted(order)
    assert upward(imports, order) == []


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
