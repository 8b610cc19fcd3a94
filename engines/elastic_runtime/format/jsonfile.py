"""Strict JSON: what we read was written by others, so nothing in it is taken on trust.

The standard library keeps the last of two equal keys, turns `1e999` into infinity and accepts integers of any length;
each of these hides an edited or damaged file. Here they are errors that name the file.

Numbers of files that are not of our formats are their writers' affair: Hugging Face's own tools write `Infinity` for
"no limit" and `1000000000000000019884624838656` for "no length known". `any_number` reads them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from elastic_runtime.errors import REFUSED, InputError

#: Bytes of the largest file read by default. The longest real ones (an index of a 62-layer model) take 40 KB.
DEFAULT_LIMIT = 64 << 20

#: Integers outside of 64 bits are no count, offset or id that any of our formats has.
_INT_BOUND = 1 << 63
_SHOWN = 60  # characters of a text in an error


class _ParseError(ValueError):
    """A fault found while parsing, before the file's name is known: (expected, found)."""


def read_json(path: Path, *, limit: int = DEFAULT_LIMIT, any_number: bool = False) -> dict[str, Any]:
    """The object a JSON file holds.

    Args:
        path: the file; its text is UTF-8 without a byte order mark.
        limit: bytes the file may have at most.
        any_number: for files of others: accept numbers of any size and the literals `Infinity`, `-Infinity` and `NaN`.
            An integer outside of 64 bits becomes a float, which is infinite where no float is as large.

    Raises:
        InputError: there is no such file, it cannot be read, is larger than `limit`, or is no strict JSON object.
    """
    return parse_json(_read_bytes(path, limit), str(path), any_number=any_number)


def parse_json(data: bytes, subject: str, *, any_number: bool = False) -> dict[str, Any]:
    """The object that JSON text holds; errors are InputErrors about `subject`. See `read_json` for the rules."""
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_int=_any_int if any_number else _bounded_int,
            parse_float=float if any_number else _finite_float,
            parse_constant=float if any_number else _no_constant,
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except _ParseError as fault:
        expected, found = fault.args
        raise InputError(subject, expected=expected, found=found) from None
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise InputError(subject, expected="UTF-8 text", found=found) from None
    except UnicodeEncodeError:
        raise InputError(subject, expected="Unicode text", found="a lone surrogate (\\ud800 to \\udfff)") from None
    except RecursionError:
        raise InputError(subject, expected="JSON of moderate depth", found="values nested too deeply") from None
    except json.JSONDecodeError as error:
        found = f"{error.msg} at line {error.lineno} column {error.colno}"
        raise InputError(subject, expected="valid JSON", found=found) from None
    if not isinstance(value, dict):
        raise InputError(subject, expected="a JSON object", found=f"{json_type(value)}")
    return value


def json_type(value: object) -> str:
    """What a JSON value is, in the words of an error: `a list of 3`, `the text 'x'`, `true`, `5`."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, str):
        shown = f"the text {value[:_SHOWN]!r}"
        return shown if len(value) <= _SHOWN else f"{shown}… of {len(value)} characters"
    return "null" if value is None else json.dumps(value)


def _read_bytes(path: Path, limit: int) -> bytes:
    try:
        if not path.is_file():
            found = "a folder" if path.is_dir() else "no such file"
            raise InputError(str(path), expected="a JSON file", found=found)
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        todo = REFUSED.get(error.errno or 0, "") if isinstance(error, OSError) else ""
        raise InputError(str(path), expected="a readable JSON file", found=reason, todo=todo) from None
    if len(data) > limit:
        raise InputError(str(path), expected=f"at most {limit} bytes of JSON", found="a larger file")
    return data


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _ParseError("every key once in an object", f"the key {repeated[:60]!r} twice")
    return result


def _bounded_int(text: str) -> int:
    if not _is_64_bits(text):
        raise _ParseError("integers of 64 bits", f"the integer {text[:24]}{'…' if len(text) > 24 else ''}")
    return int(text)


def _any_int(text: str) -> int | float:
    return int(text) if _is_64_bits(text) else float(text)


def _is_64_bits(text: str) -> bool:
    return len(text) <= 20 and -_INT_BOUND <= int(text) < _INT_BOUND  # int() refuses more than 4300 digits


def _finite_float(text: str) -> float:
    if math.isinf(value := float(text)):
        raise _ParseError("finite numbers", f"the number {text[:24]}")
    return value


def _no_constant(text: str) -> float:
    raise _ParseError("finite numbers", text)
