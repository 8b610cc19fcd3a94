"""The GPU classes engines are built for, one file `targets/<name>.toml` each.

display_name          as on the box
compute_capabilities  ["12.0"]; a portable target lists several, all in one engine
vram_mib              MiB of the card; absent for a portable target, which is no one card
usable_mib            what an application gets of it
bandwidth_gbs         10^9 bytes a second of the card's memory
source                where the figures come from

A card that none of them describes is described in the request: `sm89:24GiB:1008GBps`, its compute capability, memory
and, where it is known, bandwidth.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from elastic_runtime.errors import InputError, advised
from elastic_runtime.fit.sizes import parse_size

_MIB = 1 << 20
_NO_BF16_BELOW = (8, 0)
_OTHERS = 1024  # MiB that driver and desktop take
_DESCRIPTION = re.compile(
    r"sm(\d{2,3}):(\d{1,6}(?:\.\d{1,3})?[KMGT]i?B)(?::(\d{1,5}(?:\.\d{1,2})?)GBps)?", re.ASCII | re.IGNORECASE
)


@dataclass(frozen=True)
class Target:
    """A GPU class (module docstring). Sizes are None for a portable target."""

    name: str
    display_name: str
    compute_capabilities: tuple[str, ...]
    vram_mib: int | None
    usable_mib: int | None
    bandwidth_gbs: float | None
    source: str

    @property
    def vram_bytes(self) -> int | None:
        """Memory of the card, bytes."""
        return None if self.vram_mib is None else self.vram_mib * _MIB

    @property
    def usable_bytes(self) -> int | None:
        """Memory that an application gets, bytes."""
        return None if self.usable_mib is None else self.usable_mib * _MIB

    def capabilities(self, precision: str) -> tuple[str, ...]:
        """The compute capabilities an engine of `precision` is built for: those below 8.0 have no BF16.

        Raises:
            InputError: none is left.
        """
        kept = tuple(c for c in self.compute_capabilities if precision != "bf16" or _number(c) >= _NO_BF16_BELOW)
        if not kept:
            raise InputError(
                f"target {self.name}",
                expected="compute capability 8.0 or higher for bf16",
                found=", ".join(self.compute_capabilities),
                todo="use --precision fp16",
            )
        return kept


@cache
def load_targets() -> dict[str, Target]:
    """All targets by name, in the order of their names."""
    folder = Path(__file__).parent / "targets"
    return {path.stem: _read(path) for path in sorted(folder.glob("*.toml"))}


def select_targets(request: str | Iterable[str]) -> list[Target]:
    """The targets of a request such as `rtx5080,sm89:24GiB:1008GBps`, in its order, each once.

    Raises:
        InputError: an unknown name (the nearest ones are given), a description that says too little, or no name at all.
    """
    names = request.split(",") if isinstance(request, str) else list(request)
    names = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    known = load_targets()
    if not names:
        raise InputError(
            "target",
            expected="at least one of " + ", ".join(known),
            found="none",
            todo="name one; `elastic-export targets` lists them",
        )
    found = [_described(name) if name.lower().startswith("sm") else known.get(name) for name in names]
    for name, target in zip(names, found, strict=True):
        if target is None:
            raise _unknown(name, known)
    return [target for target in found if target is not None]


def _described(text: str) -> Target:
    """The target that `sm89:24GiB:1008GBps` describes, named `sm89-24gib-1008gbps`. Raises InputError."""
    subject = f"target {text!r}"
    parts = _DESCRIPTION.fullmatch(text)
    if parts is None:
        raise InputError(
            subject,
            expected="compute capability, memory and bandwidth, as in sm89:24GiB:1008GBps",
            found="another form",
            todo="leave the bandwidth out where it is not known, or take one that `elastic-export targets` lists",
        )
    capability, memory, bandwidth = parts.groups()
    with advised("write the memory as in 24GiB"):
        vram = parse_size(memory, subject) // _MIB
    if vram <= _OTHERS:
        raise InputError(
            subject,
            expected=f"more memory than the {_OTHERS} MiB of driver and desktop",
            found=memory,
            todo="give the memory of the whole card, as in 24GiB",
        )
    return Target(
        re.sub("[^a-z0-9.]", "-", text.lower()),
        f"a card of {memory}",
        (f"{capability[:-1]}.{capability[-1]}",),
        vram,
        vram - _OTHERS,
        float(bandwidth) if bandwidth else None,
        f"as described; usable: less {_OTHERS} MiB for driver and desktop",
    )


def _unknown(name: str, known: Iterable[str]) -> InputError:
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    todo = f"try {' or '.join(near)}" if near else "`elastic-export targets` lists them"
    return InputError(f"target {name!r}", expected="one of " + ", ".join(known), found="no such target", todo=todo)


def _read(path: Path) -> Target:
    data: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    return Target(
        path.stem,
        data["display_name"],
        tuple(data["compute_capabilities"]),
        data.get("vram_mib"),
        data.get("usable_mib"),
        data.get("bandwidth_gbs"),
        data["source"],
    )


def _number(capability: str) -> tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)
