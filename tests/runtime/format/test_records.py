from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_runtime.errors import InputError
from elastic_runtime.format.paths import check_relative, inside
from elastic_runtime.format.records import OPTIONAL, decode, encode, show


@dataclass(frozen=True)
class Inner:
    pairs: tuple[tuple[int, int], ...]
    kind: Literal["a", "b"]


@dataclass(frozen=True)
class Outer:
    count: int
    share: float
    name: str | None
    flag: bool
    inner: tuple[Inner, ...]
    options: dict[str, int | str | bool | tuple[int, ...]]


GOOD = {
    "count": 3,
    "share": 1,
    "name": None,
    "flag": True,
    "inner": [{"pairs": [[1, 2]], "kind": "a"}],
    "options": {"x": True, "y": 1, "z": "t", "l": [1, 2]},
}


@dataclass(frozen=True)
class Grown:
    """A record that a later version has given a field."""

    old: int
    new: tuple[int, ...] = field(default=(), metadata=OPTIONAL)


def test_there_and_back() -> None:
    outer = decode(Outer, GOOD, "f")
    assert outer.inner[0].pairs == ((1, 2),)
    assert outer.options["x"] is True
    assert outer.options["y"] == 1
    assert not isinstance(outer.options["y"], bool)
    assert encode(outer) == {**GOOD, "share": 1.0, "options": dict(sorted(GOOD["options"].items()))}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "where", "found"),
    [
        ({"count": True}, "f.count", "True"),
        ({"count": 1.0}, "f.count", "1.0"),
        ({"count": -1}, "f.count", "-1"),
        ({"count": 2**53}, "f.count", "9007199254740992"),
        ({"count": "1"}, "f.count", "1"),
        ({"share": float("nan")}, "f.share", "nan"),
        ({"share": float("inf")}, "f.share", "inf"),
        ({"share": False}, "f.share", "False"),
        ({"name": 3}, "f.name", "3"),
        ({"flag": 1}, "f.flag", "1"),
        ({"inner": {}}, "f.inner", "{}"),
        ({"inner": [3]}, r"f.inner\[0\]", "3"),
        ({"inner": [{"pairs": [[1]], "kind": "a"}]}, r"f.inner\[0\].pairs\[0\]", r"\[1\]"),
        ({"inner": [{"pairs": [], "kind": "c"}]}, r"f.inner\[0\].kind: expected 'a' or 'b'", "c"),
        ({"inner": [{"pairs": [], "kind": []}]}, r"f.inner\[0\].kind", r"\[\]"),
        ({"options": {"x": None}}, r"f.options\['x'\]", "None"),
        ({"options": {"x": [True]}}, r"f.options\['x'\]", "True"),
        ({"options": []}, "f.options", r"\[\]"),
        ({"extra": 1}, "f: expected only the fields count, share", "'extra' as well"),
    ],
)
def test_every_wrong_value_is_named(change: dict[str, object], where: str, found: str) -> None:
    with pytest.raises(InputError, match=f"^{where}.* found .*{found}"):
        decode(Outer, {**GOOD, **change}, "f")


def test_an_optional_field_is_left_out_while_it_has_its_default() -> None:
    assert encode(Grown(1)) == {"old": 1}
    assert encode(Grown(1, (2,))) == {"old": 1, "new": [2]}
    assert decode(Grown, {"old": 1}, "x") == Grown(1)
    assert decode(Grown, {"old": 1, "new": [2]}, "x") == Grown(1, (2,))
    with pytest.raises(InputError, match="only the fields old, new"):
        decode(Grown, {"old": 1, "newer": []}, "x")


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InputError, match="f: expected the field 'flag', found no such field"):
        decode(Outer, {name: value for name, value in GOOD.items() if name != "flag"}, "f")


def test_show_is_short_and_printable() -> None:
    assert show("a\nb\x1b[31m") == "a\\nb\\x1b[31m"
    assert len(show("x" * 10**6)) == 60


@given(st.text(max_size=20))
def test_what_passes_as_relative_stays_inside(text: str) -> None:
    try:
        check_relative(text, "f")
    except InputError:
        return
    depth = 0
    for part in text.split("/"):
        depth += -1 if part == ".." else 1
        assert depth > 0
    assert not text.startswith("/")


def test_good_paths() -> None:
    for text in ("a", "6b/model.onnx", "a/..b/c.d", "über/ü.bin"):
        assert check_relative(text, "f") == text
    assert check_relative("../weights/a", "f", parents=1) == "../weights/a"
    for text in ("a/" * 600 + "a", "a\ud800", "..", "../a", "a/", "nul\0", "~\n"):
        with pytest.raises(InputError, match="expected a relative path inside the bundle"):
            check_relative(text, "f")


def test_a_link_out_of_the_bundle_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "bundle").mkdir()
    (tmp_path / "secret").touch()
    (tmp_path / "bundle" / "a").symlink_to("../secret")
    (tmp_path / "bundle" / "b").symlink_to("c")
    with pytest.raises(InputError, match=r"expected a file inside .*bundle, found a link to .*secret"):
        inside(tmp_path / "bundle", "a", "a")
    assert inside(tmp_path / "bundle", "b", "b").name == "c"
