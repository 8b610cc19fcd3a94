"""The seal of manifest.json: a digest over its own bytes, so that one flipped bit anywhere in it is found.

The file holds `"seal": "<64 hex digits>"` once. The digits are the sha256 of the file's bytes with these 64 digits
replaced by 64 times `0`. No JSON parser is needed to check it, and every later schema version keeps it.
"""

from __future__ import annotations

import hashlib
import re

EMPTY = "0" * 64
_SEAL = re.compile(rb'"seal": "([0-9a-f]{64})"')


def seal(text: str) -> str:
    """Put the digest of `text` where it holds `"seal": "000…"` once."""
    data = text.encode("utf-8")
    return text.replace(f'"seal": "{EMPTY}"', f'"seal": "{hashlib.sha256(data).hexdigest()}"')


def is_sealed(data: bytes) -> bool:
    """Whether the bytes of a manifest are those that were sealed."""
    found = list(_SEAL.finditer(data))
    if len(found) != 1:
        return False
    start, end = found[0].span(1)
    blank = data[:start] + EMPTY.encode() + data[end:]
    return hashlib.sha256(blank).hexdigest().encode() == data[start:end]
