"""Sizes as people write them, in any case: 12GiB, 800MiB, 16gb, 1TiB, 123456."""

from __future__ import annotations

import re

from elastic_runtime.errors import InputError
from elastic_runtime.format.records import MAX_INT, show

_DECIMAL = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS = {"": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40} | _DECIMAL
_FORM = re.compile(r"\s{0,8}(\d{1,12}(?:\.\d{1,6})?)\s{0,8}([A-Za-z]{0,3})\s{0,8}", re.ASCII)


def parse_size(text: str, subject: str) -> int:
    """Bytes, up to MAX_INT. Raises InputError about `subject` unless it is a positive number with a known unit."""
    found = _FORM.fullmatch(text)
    unit = _UNITS.get(found[2].upper()) if found else None
    size = int(float(found[1]) * unit) if found and unit else 0
    if not 1 <= size <= MAX_INT:
        raise InputError(subject, expected="a size such as 12GiB or 16GB, above 0", found=show(repr(text)))
    return size
