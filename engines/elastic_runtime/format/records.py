"""Strict JSON for frozen dataclasses: the annotations are the schema.

Allowed field types: `int` (0 to 2^53 - 1, so that every JSON reader holds it exactly), `float`, `str`, `bool`,
`Literal`, a record, `tuple[X, ...]` or a fixed `tuple[X, Y]` (JSON arrays), `dict[str, X]` (JSON objects) and unions
with `None`. Every field is required and no other is allowed: a reader that does not know a field cannot know whether
it may ignore it, so a new field is a new schema version. Except where nothing changes for those who do without it: a
field with a default and the metadata `OPTIONAL` is left out while it has its default.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from functools import cache, partial
from numbers import Integral
from typing import Any, Literal, TypeGuard, TypeVar, Union

from elastic_runtime.errors import InputError

MAX_INT = 2**53 - 1
_SCALARS: dict[Any, str] = {
    int: f"an integer from 0 to {MAX_INT}",
    float: "a finite number",
    str: "text",
    bool: "true or false",
}
R = TypeVar("R")
OPTIONAL = {"optional": True}


def decode(record: type[R], value: object, where: str, **given: object) -> R:
    """Build a dataclass from parsed JSON.

    Args:
        record: the dataclass; `given` are fields that stand elsewhere than in `value` (a name that is the key above
            it).
        value: what the JSON reader returned.
        where: how an error names the place, such as `manifest.json: budgets[0]`.

    Raises:
        InputError: wrong type, missing or unknown field; the subject is the path to the value.
    """
    if not isinstance(value, dict):
        raise _mismatch(where, "an object", value)
    hints = _hints(typing.cast(Any, record))
    names = [name for name in hints if name not in given]
    _check_names(names, _optional(typing.cast(Any, record)), value, where)
    fields = {name: _decode(hints[name], value[name], f"{where}.{name}") for name in names if name in value}
    return record(**fields, **given)


def encode(value: object) -> Any:
    """The JSON form of a record: objects in field order, arrays for tuples. Inverse of `decode`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        left_out = {name for name, default in _optional(type(value)).items() if getattr(value, name) == default}
        fields = (field.name for field in dataclasses.fields(value) if field.name not in left_out)
        return {name: encode(getattr(value, name)) for name in fields}
    if isinstance(value, dict):
        return {name: encode(value[name]) for name in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def show(value: object, limit: int = 60) -> str:
    """A short form of any value for an error message."""
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def is_integer(value: object) -> TypeGuard[int]:
    """Whether it counts: a bool and a float do not, be they whole."""
    return isinstance(value, Integral) and not isinstance(value, bool)


@cache
def _hints(record: type[Any]) -> dict[str, Any]:
    """Field names and types of a dataclass, in order; evaluating the annotations is slow, hence the cache."""
    hints = typing.get_type_hints(record)
    return {field.name: hints[field.name] for field in dataclasses.fields(record)}


@cache
def _optional(record: type[Any]) -> dict[str, object]:
    """Fields that may be absent and then have their default, see `OPTIONAL`."""
    return {field.name: field.default for field in dataclasses.fields(record) if field.metadata.get("optional")}


def _check_names(names: list[str], optional: dict[str, object], value: dict[Any, object], where: str) -> None:
    missing = [name for name in names if name not in value and name not in optional]
    unknown = [show(name) for name in value if name not in names]
    if missing:
        raise InputError(where, expected=f"the field {missing[0]!r}", found="no such field")
    if unknown:
        raise InputError(where, expected=f"only the fields {', '.join(names)}", found=f"{unknown[0]!r} as well")


def _decode(kind: Any, value: object, where: str) -> Any:
    return _decoder(kind)(value, where)


@cache
def _decoder(kind: Any) -> Callable[[object, str], Any]:
    """What decodes values of a type. It takes longer to find than to run, and a manifest has thousands of values."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return partial(decode, typing.cast(type[Any], kind))
    if origin in (Union, types.UnionType):
        return partial(_decode_union, arguments)
    if origin is Literal:
        return partial(_decode_choice, arguments)
    if origin is tuple:
        return partial(_decode_tuple, arguments)
    if origin is dict:
        return partial(_decode_dict, arguments[1])
    return partial(_decode_scalar, kind)


def _decode_scalar(kind: Any, value: object, where: str) -> Any:
    if _is_scalar(kind, value):
        return kind(value)
    raise _mismatch(where, _SCALARS[kind], value)


def _is_scalar(kind: Any, value: object) -> bool:
    if kind is int:
        return type(value) is int and 0 <= value <= MAX_INT
    if kind is float:
        return type(value) in (int, float) and math.isfinite(typing.cast(float, value))
    return type(value) is kind


def _decode_union(kinds: tuple[Any, ...], value: object, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    options = [kind for kind in kinds if kind is not type(None)]
    if len(options) == 1:
        return _decode(options[0], value, where)
    for kind in options:
        try:
            return _decode(kind, value, where)
        except InputError:
            continue
    found = repr(show(value)) if isinstance(value, str) else show(value)  # a number as text is not that number
    raise InputError(where, expected="one of the forms " + ", ".join(map(_form, options)), found=found)


def _form(kind: Any) -> str:
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    return _choice(choices) if choices else _SCALARS.get(kind, "an array")


def _decode_choice(choices: tuple[Any, ...], value: object, where: str) -> Any:
    if type(value) is str and value in choices:
        return value
    raise _mismatch(where, _choice(choices), value)


def _choice(choices: tuple[Any, ...]) -> str:
    return " or ".join(map(repr, choices))


def _decode_tuple(kinds: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _mismatch(where, "an array", value)
    if kinds[-1] is Ellipsis:
        return tuple(_decode(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if len(value) != len(kinds):
        raise _mismatch(where, f"an array of {len(kinds)} items", value)
    return tuple(_decode(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _decode_dict(kind: Any, value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _mismatch(where, "an object", value)
    return {name: _decode(kind, item, f"{where}[{show(name)!r}]") for name, item in value.items()}


def _mismatch(where: str, expected: str, value: object) -> InputError:
    return InputError(where, expected=expected, found=show(value))
