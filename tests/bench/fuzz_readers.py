"""Mutates manifests, recipes and golden runs and feeds them to their readers: nothing but an ElasticError may come out.

    python tests/bench/fuzz_readers.py BUNDLE --seconds 600 [--seed N]

Bytes are flipped, cut, doubled; values of the parsed JSON are exchanged for hostile ones. A mutated manifest gets a
valid seal, or nothing behind it would ever be reached. Prints cases by reader, how they ended, and the slowest.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from elastic_runtime.errors import ElasticError
from elastic_runtime.format.golden import read_golden
from elastic_runtime.format.jsonfile import parse_json
from elastic_runtime.format.manifest_reader import parse_manifest
from elastic_runtime.format.seal import EMPTY, seal
from elastic_runtime.format.weights import WeightRecipe

HOSTILE: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**53 - 1, 2**53, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308, 1e-320, "", "x",
    "../../etc/passwd", "/etc/passwd", "a\\b", "C:\\x", "a\0b", "\ud800", "é" * 2000, "x" * 100_000, [], {}, [[]], [0],
    [[0, 1]], [[1, 0]], {"a": 1}, {"": ""}, [None] * 1000, [[[[[[]]]]]],
]  # fmt: skip
TOKENS = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\\u",
    b"NaN",
    b"Infinity",
    b"1e999",
    b"-",
    b"\x00",
    b"\xff",
]


def main() -> int:
    """Fuzz for the time asked for; exit 1 where anything else than an ElasticError came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw, readers = random.Random(arguments.seed), _readers(arguments.bundle)
    ends, slowest, escaped = Counter[str](), (0.0, ""), 0
    until = time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as scratch:
        while time.monotonic() < until:
            name, original, read = draw.choice(readers)
            data = _mutated(original, draw, structured=name != "golden")
            start = time.perf_counter()
            try:
                read(data, Path(scratch))
                end = "accepted"
            except ElasticError as error:
                end = "refused" if str(error).replace("\n", "").isprintable() else "ESCAPED control characters"
                escaped += not str(error).replace("\n", "").isprintable()
            except BaseException as error:  # what must not be
                escaped += 1
                end = f"ESCAPED {type(error).__name__}"
                Path(f"escaped-{escaped}.bin").write_bytes(data)
                print(f"{name}: {error!r}", file=sys.stderr)
            ends[f"{name} {end}"] += 1
            slowest = max(slowest, (time.perf_counter() - start, name))
    for what, count in sorted(ends.items()):
        print(f"{count:9d}  {what}")
    print(f"slowest: {slowest[0] * 1e3:.0f} ms ({slowest[1]})")
    return 1 if escaped else 0


def _readers(bundle: Path) -> list[tuple[str, bytes, Callable[[bytes, Path], object]]]:
    def golden(data: bytes, scratch: Path) -> object:
        path = scratch / "golden.safetensors"
        path.write_bytes(data)
        return read_golden(path)

    readers: list[tuple[str, bytes, Callable[[bytes, Path], object]]] = [
        ("manifest", (bundle / "manifest.json").read_bytes(), lambda data, _: parse_manifest(_resealed(data)))
    ]
    for folder in sorted(path.parent for path in bundle.glob("*/weights.json")):
        recipe = (folder / "weights.json").read_bytes()
        readers.append(("recipe", recipe, lambda data, _: WeightRecipe.from_json(parse_json(data, "weights.json"))))
        readers.append(("golden", (folder / "golden.safetensors").read_bytes(), golden))
    return readers


def _resealed(data: bytes) -> bytes:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return data
    return seal(re.sub(r'"seal": "[0-9a-f]{64}"', f'"seal": "{EMPTY}"', text)).encode("utf-8", "surrogatepass")


def _mutated(data: bytes, draw: random.Random, *, structured: bool) -> bytes:
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        edit = _edit_value if structured and draw.random() < 0.7 else _edit_bytes
        data = edit(data, draw)
    return data


def _edit_bytes(data: bytes, draw: random.Random) -> bytes:
    if not data:
        return b"{"
    at = draw.randrange(min(len(data), 4096) if draw.random() < 0.5 else len(data))
    kind = draw.randrange(5)
    if kind == 0:
        return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + draw.choice(TOKENS) + data[at:]
    if kind == 3:
        return data[:at] + data[at + draw.randrange(1, 50) :]
    return data[:at] + data[at : at + draw.randrange(1, 200)] * 2 + data[at:]


def _edit_value(data: bytes, draw: random.Random) -> bytes:
    """Exchange, drop, repeat or add one value somewhere in the JSON."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _edit_bytes(data, draw)
    parent, key = _place(value, draw)
    if parent is None:
        return _edit_bytes(data, draw)
    kind = draw.randrange(4)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, list):
        parent.insert(key, parent[key])
    elif kind == 2 and isinstance(parent, dict):
        parent[draw.choice(["extra", "", "__class__", "file", "shape"])] = draw.choice(HOSTILE)
    else:
        parent[key] = draw.choice(HOSTILE)
    return json.dumps(value, indent=1, ensure_ascii=draw.random() < 0.9).encode("utf-8", "surrogatepass")


def _place(value: Any, draw: random.Random) -> tuple[Any, Any]:
    """A container and one of its keys, at a random depth."""
    parent, key = None, None
    while isinstance(value, (dict, list)) and value and (parent is None or draw.random() < 0.85):
        parent, key = value, draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
        value = parent[key]
    return parent, key


if __name__ == "__main__":
    sys.exit(main())
