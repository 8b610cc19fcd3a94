"""What `nvidia-smi -q` says of a machine, without what tells it from every other one.

Left out are the values of fields that number or name one card, board, rack, host or licence, and the programs that use
the card, whose paths name people. A card's identifier is left out wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LEFT_OUT = "(left out)"
#: Within the name of a field, blanks and case aside. PDI is a card's "per-device identifier".
_NAMING = re.compile(r"serial|uuid|guid|pdi|chassis|host|clique|cluster|slot|tray|rack|licen[sc]e|boardid|address$")
_UUID = re.compile(r"\b(?:GPU-|MIG-)?[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE)
_PROGRAMS = ("processes", "accountedprocesses", "accountingprocesses")


def without_identities(report: str) -> str:
    """The report, line by line, with `LEFT_OUT` where something was."""
    return "".join(f"{line}\n" for line in _lines(report))


def _lines(report: str) -> Iterator[str]:
    inside: int | None = None  # the indent of the heading whose lines are left out
    for line in report.splitlines():
        indent = len(line) - len(line.lstrip())
        if inside is not None and (indent > inside or not line.strip()):
            continue
        inside = None
        name, colon, value = line.partition(" : ") if " : " in line else line.partition(":")
        plain = re.sub(r"[\s_]", "", name).lower()
        if plain in _PROGRAMS:
            inside = indent
            yield f"{name.rstrip()} : {LEFT_OUT}"
        elif colon and value.strip() not in ("", "N/A") and _NAMING.search(plain):
            yield f"{name}{colon.rstrip()} {LEFT_OUT}"
        else:
            yield _UUID.sub(LEFT_OUT, line)
