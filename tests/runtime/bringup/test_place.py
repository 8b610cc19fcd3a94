"""What a stage's process is told."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from elastic_runtime.bringup.modes import LAZY
from elastic_runtime.bringup.place import Place
from elastic_runtime.errors import BuildError


def test_a_place_is_the_same_on_the_other_side_of_a_command_line() -> None:
    whole = Place(
        Path("a b/'\"ü"), Path("r"), "small/a.engine", "small", LAZY, Path("plugins"), True, Path("shards"), Path("src")
    )
    assert all(getattr(whole, field.name) != field.default for field in fields(whole))
    for place in (whole, Place(Path("bundle"), Path("folder"))):
        assert Place.from_json(place.to_json()) == place


def test_an_engine_that_is_not_in_the_bundle_is_named(demo_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"large/other\.engine: expected an engine of the bundle, found none"):
        Place(demo_bundle, tmp_path, engine="large/other.engine").opened()
