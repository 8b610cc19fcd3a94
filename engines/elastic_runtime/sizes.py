"""Sizes as people write them: 12GiB, 800MiB, 16GB, 123456."""

from __future__ import annotations

import re

from elastic_runtime.errors import InputError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
_FORM = re.compile(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([A-Za-z]*)\s*")


def parse_size(text: str, subject: str) -> int:
    """Bytes. Raises InputError about `subject` unless it is a positive number with a known unit."""
    found = _FORM.fullmatch(text)
    unit = _UNITS.get(found[2].upper()) if found else None
    size = int(float(found[1]) * unit) if found and unit else 0
    if size < 1:
        raise InputError(subject, expected="a size such as 12GiB or 16GB, above 0", found=repr(text[:40]))
    return size
