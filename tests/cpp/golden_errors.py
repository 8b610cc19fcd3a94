"""The malformed files of tests/golden/errors.json: every edit with the error that the Python runtime gives for it.

The edits themselves stand in the file (`replace`, `by`): add one there and write the files anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from elastic_runtime.errors import ElasticError
from elastic_runtime.format.jsonfile import parse_json
from elastic_runtime.format.manifest import (
    BudgetEntry,
    Checkpoint,
    EngineEntry,
    FileEntry,
    Fits,
    InputPort,
    Manifest,
    OutputPort,
    StateEntry,
    Status,
    Widths,
)
from elastic_runtime.format.manifest_reader import parse_manifest
from elastic_runtime.format.seal import EMPTY, seal
from elastic_runtime.format.weights import WeightRecipe

FILE = Path(__file__).parent.parent / "golden" / "errors.json"

_WEIGHT = (
    '{"schema": "elastic-weights/1", "inputs": {"w": {"file": "../weights/m.safetensors", "offset": 8, '
    '"dtype": "bf16", "parent_shape": [6, 4], "shape": [3, 4], "runs": [[[0, 2], [4, 1]], [[0, 4]]]}}}'
)


def small_manifest() -> str:
    """A manifest with everything in it once."""
    widths = Widths(16, 8, (), (2,), 4, 1, 4, 4, 2, 1, 4)
    inputs = (InputPort("input_ids", "int64", ("B", "T")), InputPort("conv_state.0", "bfloat16", ("B", 3, 8)))
    outputs = (
        OutputPort("logits", "float32", ("B", 16), None, None),
        OutputPort("conv_state_out.0", "bfloat16", ("B", 3, 8), "conv_state.0", "must_not"),
    )
    fits = Fits(64, 2, 200, 4, 6, 8, False, 10, 228, None, None)
    engine = EngineEntry(
        "rtx", ("8.9",), "small/a.engine", "tensorrt-rtx", "1.7.1", "native", None, 64, 32, 2, inputs, outputs, 8,
        False, Status("built"), fits,
    )  # fmt: skip
    state = StateEntry("conv_state.0", 0, (None, ((0, 3),), ((0, 8),)))
    budget = BudgetEntry(
        "small", 100, "M", 1, (0,), widths, True, 200, 2, 3, (state,), "small/model.onnx", None, None, None, (engine,)
    )
    files = (FileEntry("small/a.engine", 17, EMPTY), FileEntry("small/model.onnx", 18, EMPTY[:60] + "5555"))
    return Manifest(
        "elastic-export 0.1.0", False, Checkpoint("parent", "f" * 64), "bf16", "embedded", "last", {"verify": True},
        {"tensorrt-rtx": "1.7.1"}, ("one",), (budget,), files,
    ).to_json()  # fmt: skip


def error_cases() -> dict[str, Any]:
    """For every edit the error that the Python runtime gives. Accepted ones have empty fields."""
    compact = json.dumps(json.loads(small_manifest()), ensure_ascii=False)
    manifest = seal(compact.replace(json.loads(compact)["seal"], EMPTY))
    readers: dict[str, tuple[str, Callable[[str], object]]] = {
        "manifest": (manifest, lambda text: parse_manifest(_reseal(text).encode())),
        "seal": (manifest, lambda text: parse_manifest(text.encode())),
        "weights": (_WEIGHT, lambda text: WeightRecipe.from_json(parse_json(text.encode(), "weights.json"))),
        "json": ('{"a": 1}', lambda text: parse_json(text.encode(), "x.json")),
        "json of others": ('{"a": 1}', lambda text: parse_json(text.encode(), "x.json", any_number=True)),
    }
    groups, known = {}, json.loads(FILE.read_text("utf-8"))
    for name, (base, read) in readers.items():
        cases = [_case(base, "", "", read)]
        cases += [_case(base, edit["replace"], edit["by"], read) for edit in known[name]["cases"] if edit["replace"]]
        groups[name] = {"base": base, "cases": cases}
    return groups


def _reseal(text: str) -> str:
    value = text.split('"seal": "', 1)[1][:64]
    return seal(text.replace(value, EMPTY))


def _case(base: str, old: str, new: str, read: Callable[[str], object]) -> dict[str, Any]:
    assert old in base, old
    case = {"replace": old, "by": new, "subject": "", "expected": "", "found": "", "todo": "", "exit": 0}
    try:
        read(base.replace(old, new, 1))
    except ElasticError as error:
        said = {name: getattr(error, name) for name in ("subject", "expected", "found", "todo")}
        case |= said | {"exit": error.exit_code}
    return case
