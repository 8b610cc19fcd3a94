"""The rooms of engines/cpp/src keep their order: a file includes from its own room and from those it may know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "engines" / "cpp" / "src"
PRIVATE = re.compile(r'^#include "(?!elastic_runtime/)(?:(\w+)/)?([\w.]+)"', re.MULTILINE)
SDK = {"onnxruntime_c_api.h"}  # beside our own
#: What each room may include from, besides itself and the files beside the rooms.
KNOWS: dict[str, set[str]] = {
    "format": set(),
    "fit": set(),
    "driver": set(),
    "text": {"format"},
    "ort": {"driver", "format"},
    "tensorrt": {"driver", "format"},
}


def test_rooms_are_those_of_python() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    python = {path.name for path in (SOURCE.parents[1] / "elastic_runtime").iterdir() if path.is_dir()}
    assert rooms == set(KNOWS)
    assert rooms <= python


@pytest.mark.parametrize("room", KNOWS)
def test_a_room_includes_from_those_it_may_know(room: str) -> None:
    found = {
        (path.name, other, name)
        for path in (SOURCE / room).iterdir()
        for other, name in PRIVATE.findall(path.read_text("utf-8"))
        if other not in ("", room) and other not in KNOWS[room]
    }
    assert found == set()


def test_every_include_names_a_file_where_it_stands() -> None:
    missing = [
        (path.name, other, name)
        for path in SOURCE.rglob("*.*")
        for other, name in PRIVATE.findall(path.read_text("utf-8"))
        if not (SOURCE / other / name).is_file() and name not in SDK
    ]
    assert missing == []
