"""Strict JSON: every malformed input gives an error that names the file and the fault."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elastic_runtime.errors import InputError
from elastic_runtime.format.jsonfile import json_type, parse_json, read_json

BAD = {
    "empty": (b"", "expected valid JSON, found Expecting value at line 1 column 1."),
    "cut": (b'{"a": 1', "expected valid JSON, found Expecting ',' delimiter at line 1 column 8."),
    "trailing": (b"{} {}", "expected valid JSON, found Extra data at line 1 column 4."),
    "not UTF-8": (b'{"a": "\xff"}', "expected UTF-8 text, found byte 0xff at offset 7."),
    "byte order mark": (b"\xef\xbb\xbf{}", "expected valid JSON, found Unexpected UTF-8 BOM"),
    "lone surrogate": (b'{"a": "\\ud800"}', "expected Unicode text, found a lone surrogate (\\ud800 to \\udfff)."),
    "twice": (b'{"a": {"b": 1, "c": 2, "b": 3}}', "expected every key once in an object, found the key 'b' twice."),
    "deep": (b'{"a": ' + b"[" * 100_000, "expected JSON of moderate depth, found values nested too deeply."),
    "list": (b"[1, 2]", "expected a JSON object, found a list of 2."),
    "text": (b'"x"', "expected a JSON object, found the text 'x'."),
    "NaN": (b'{"a": NaN}', "expected finite numbers, found NaN."),
    "infinity": (b'{"a": Infinity}', "expected finite numbers, found Infinity."),
    "overflow": (b'{"a": 1e999}', "expected finite numbers, found the number 1e999."),
    "long integer": (b'{"a": ' + b"9" * 5000 + b"}", "found the integer 999999999999999999999999…."),
    "65 bits": (b'{"a": 9223372036854775808}', "found the integer 9223372036854775808."),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_malformed_text_is_named(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: expected ")
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_files_that_are_none(tmp_path: Path) -> None:
    for path, found in ((tmp_path, "a folder"), (tmp_path / "none", "no such file")):
        with pytest.raises(InputError, match=f"expected a JSON file, found {found}"):
            read_json(path)


def test_the_limit_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'{"a":1}')
    assert read_json(path, limit=7) == {"a": 1}
    with pytest.raises(InputError, match="expected at most 6 bytes of JSON, found a larger file"):
        read_json(path, limit=6)


def test_numbers_of_other_peoples_files_are_read() -> None:
    data = b'{"limit": [0.0, Infinity, -Infinity], "length": 1000000000000000019884624838656, "n": [1e999, NaN]}'
    found = parse_json(data, "x", any_number=True)
    assert found["limit"] == [0.0, math.inf, -math.inf]
    assert found["length"] == 1e30
    assert found["n"][0] == math.inf
    assert math.isnan(found["n"][1])


@given(st.integers(-(10**400), 10**400) | st.integers(-(2**65), 2**65))
def test_an_integer_of_any_size_stays_one_within_64_bits(value: int) -> None:
    found = parse_json(json.dumps({"a": value}).encode(), "x", any_number=True)["a"]
    assert type(found) is (int if -(2**63) <= value < 2**63 else float)
    assert found == value or abs(value) > 10**308 or math.isclose(found, value)


def test_more_digits_than_python_counts_with_are_infinite() -> None:
    assert parse_json(b'{"a": -' + b"9" * 5000 + b"}", "x", any_number=True) == {"a": -math.inf}


def test_the_extremes_of_64_bits_pass() -> None:
    assert parse_json(b'{"a": [9223372036854775807, -9223372036854775808]}', "x")["a"] == [2**63 - 1, -(2**63)]


def test_json_type_reads_well() -> None:
    shown = [json_type(value) for value in ([1], {}, "x", None, True, 5, 0.5)]
    assert shown == ["a list of 1", "an object", "the text 'x'", "null", "true", "5", "0.5"]


def test_a_text_that_is_cut_short_says_so() -> None:
    """Else a name of 300 letters is refused with one that is not too long."""
    assert json_type("a" * 60) == f"the text {'a' * 60!r}"
    assert json_type("a" * 300) == f"the text {'a' * 60!r}… of 300 characters"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), VALUES), st.booleans())
def test_what_json_writes_is_read_back(value: dict[str, object], ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode(), "x") == value


@given(st.binary(max_size=60) | st.text('{}[]",:0159eE-+.\\udNaInfty ', max_size=60).map(str.encode))
def test_any_bytes_give_an_object_or_an_input_error(data: bytes) -> None:
    try:
        assert isinstance(parse_json(data, "x"), dict)
    except InputError as error:
        assert str(error).startswith("x: expected ")  # noqa: PT017  # either outcome is right
