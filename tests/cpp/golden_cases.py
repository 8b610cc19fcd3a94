"""Makes the files of tests/golden, which the Python and the C++ runtime are both held to.

`python tests/cpp/golden_cases.py` writes them anew; a test finds files that are not what this makes.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from golden_eos import eos_cases
from golden_errors import error_cases
from golden_forms import forms_cases, with_forms
from golden_sessions import session_cases

from elastic_export.bundle.consumer_rules import RULES
from elastic_runtime import session_request
from elastic_runtime.errors import InputError
from elastic_runtime.fit.choose import choose
from elastic_runtime.fit.sizes import parse_size
from elastic_runtime.format.manifest import (
    BudgetEntry,
    Checkpoint,
    EngineEntry,
    FileEntry,
    Fits,
    InputPort,
    Manifest,
    OutputPort,
    Plugin,
    Precision,
    Status,
    Widths,
)
from elastic_runtime.format.manifest_reader import parse_manifest
from elastic_runtime.format.sketch import splitmix64
from elastic_runtime.format.weights import WeightRecipe, iter_weights
from elastic_runtime.ort.open_onnx import ram_needed
from elastic_runtime.tensorrt.call_size import call_size

FOLDER = Path(__file__).parent.parent / "golden"
GIB = 1 << 30
NONE = "0" * 64

#: name: parameters, state bytes, KV bytes a token, activation: the published 12B, 9B and 4B in bf16 (test_choose.py)
FAMILY = {
    "12b": (12_310_001_152, 148_865_024, 24_576, 207_000_000),
    "9b": (8_888_227_328, 143_548_416, 16_384, 190_000_000),
    "4b": (3_973_556_832, 83_801_088, 16_384, 150_000_000),
}
CONTEXTS = (4096, 8192, 16384)
#: precision, context and rows on the CPU
HOST_CASES: list[tuple[Precision, int, int]] = [("bf16", 4096, 1), ("fp16", 16384, 3), ("fp32", 4096, 2)]


def manifest_12b() -> str:
    """A bundle of the family's shape with engines for 4k, 8k and 16k; the 4b has portable ones, native and plugin."""
    budgets = [_budget(name, *numbers) for name, numbers in FAMILY.items()]
    paths = [path for b in budgets for path in (b.model, *(e.file for e in b.engines))]
    files = tuple(FileEntry(path, 1, NONE) for path in paths)
    checkpoint = Checkpoint("family", "f" * 64)
    options = {"max_batch": 4, "max_context": CONTEXTS, "targets": ("rtx", "rtx5080"), "verify": True}
    return Manifest(
        "elastic-export 0.1.0", False, checkpoint, "bf16", "shared", "last", options, {"tensorrt-rtx": "1.7.1"}, RULES,
        tuple(budgets), files,
    ).to_json()  # fmt: skip


def _budget(name: str, parameters: int, state: int, kv: int, activation: int) -> BudgetEntry:
    engines = [_engine(f"{name}/rtx5080.{c}.engine", "rtx5080", ("12.0",), c, activation) for c in CONTEXTS]
    if name == "4b":
        engines.append(_engine("4b/rtx.engine", "rtx", ("8.6", "8.9", "12.0"), 4096, activation + 1))
        plugin = _engine("4b/rtx.plugin.engine", "rtx", ("8.9",), 4096, activation + 2)
        engines.append(replace(plugin, ops="plugin", plugin=Plugin("libelastic_plugins.so", "rtx-1.7")))
    widths = Widths(131072, 5120, (20480,), (128,), 80, 8, 128, 4, 40, 8, 128)
    return BudgetEntry(
        name, parameters, "M-*", 3, (0, 1, 2), widths, True, 2 * parameters, state, kv, (),
        f"{name}/model.onnx", None, None, None, tuple(engines),
    )  # fmt: skip


def _engine(file: str, target: str, capabilities: tuple[str, ...], context: int, activation: int) -> EngineEntry:
    fits = Fits(context, 4, 1, 1, 1, activation, False, 1, 1, None, None)
    return EngineEntry(
        target, capabilities, file, "tensorrt-rtx", "1.7.1", "native", None, context, 256, 4,
        (InputPort("input_ids", "int64", ("B", "T")),), (OutputPort("logits", "float32", ("B", 131072), None, None),),
        activation, False, Status("built"), fits,
    )  # fmt: skip


def choose_cases() -> dict[str, Any]:
    """What `choose` says about that bundle, for all memories of the acceptance table and for the edges."""
    budgets = parse_manifest(manifest_12b().encode()).budgets
    asked: list[tuple[int, int | None, int, str | None]]
    asked = [(gib * GIB, c, 1, None) for gib in (8, 12, 16, 24, 32) for c in CONTEXTS]
    asked += [(18_821_357_030, 4096, 1, None), (18_821_357_029, 4096, 1, None), (12 * GIB, 5000, 3, None)]
    asked += [(32 * GIB, 20000, 1, None), (32 * GIB, 4096, 5, None), (32 * GIB, 1, 1, "8.9"), (32 * GIB, 1, 1, "9.0")]
    asked += [(16 * GIB, 4096, 4, "12.0"), (1, 1, 1, None)]
    asked += [(gib * GIB, None, 1, None) for gib in (8, 9, 12, 32)]
    asked += [(9 * GIB, None, 4, "12.0"), (32 * GIB, None, 1, "8.9"), (32 * GIB, None, 5, None)]
    cases = []
    for vram, context, batch, capability in asked:
        choice = choose(budgets, vram=vram, context=context, batch=batch, compute_capability=capability)
        chosen = choice.chosen
        cases.append({
            "vram": vram, "context": context, "batch": batch, "compute_capability": capability,
            "budget": chosen and chosen.budget.name,
            "engine": chosen and chosen.engine and chosen.engine.file,
            "total": chosen and chosen.need and chosen.need.total,
            "explain": choice.explain(),
        })  # fmt: skip
    return {"manifest": "manifest_12b.json", "cases": cases, "host": _host_cases(budgets), "sizes": _size_cases()}


def _host_cases(budgets: tuple[BudgetEntry, ...]) -> list[dict[str, Any]]:
    """Bytes that the CPU takes for the family with embedded weights, in narrow states and in wide ones."""
    return [
        {
            "budget": budget.name, "precision": precision, "context": context, "batch": batch,
            "bytes": ram_needed(budget, None, context=context, batch=batch, precision=precision).stored,
        }
        for budget in budgets for precision, context, batch in HOST_CASES
    ]  # fmt: skip


SIZES = (
    "12GiB", "12gib", " 1.5 GiB ", "16GB", "16 gb", "1TiB", "2tb", "500MiB", "1073741824", "7b", "1KB", "0.1KiB",
    "", "0", "0.1B", "-1GiB", "GiB", "1e3GiB", "12XiB", "12GiBs", "1.2.3GiB", ".5GiB", "5.GiB", "nan", "12 G iB",
    "1234567890123", "99999999999GiB", "9007.199254TB", "9007.2TB", "it's 12GiB", "1" * 80,
    " " * 8 + "1" + " " * 8 + "B" + " " * 8, " " * 9 + "1B",
)  # fmt: skip


def _size_cases() -> list[dict[str, Any]]:
    """Bytes that a text names, or what is said where it names none."""
    cases = []
    for text in SIZES:
        try:
            cases.append({"text": text, "bytes": parse_size(text, "--vram"), "error": None})
        except InputError as error:
            cases.append({"text": text, "bytes": None, "error": str(error)})
    return cases


#: dtype, parent shape, runs per axis; the shapes of the packed projections and convolutions, scaled down, and edges
SLICES: list[tuple[str, list[int], list[list[list[int]]]]] = [
    ("bf16", [64, 48], [[[0, 64]], [[0, 48]]]),
    ("bf16", [64, 48], [[[0, 40]], [[0, 31]]]),
    ("fp16", [181, 40], [[[0, 12], [20, 12], [40, 101], [180, 1]], [[0, 33]]]),
    ("fp32", [96, 1, 4], [[[0, 10], [16, 10], [64, 32]], [[0, 1]], [[0, 4]]]),
    ("fp32", [37], [[[3, 5], [8, 2], [30, 7]]]),
    ("bf16", [5, 7, 6], [[[1, 2], [4, 1]], [[0, 3], [5, 2]], [[1, 4]]]),
    ("fp16", [3, 4, 5, 6], [[[0, 1], [2, 1]], [[1, 2]], [[0, 5]], [[0, 2], [3, 3]]]),
    ("fp32", [1, 1], [[[0, 1]], [[0, 1]]]),
    ("bf16", [300, 200], [[[0, 300]], [[10, 1], [12, 1], [14, 150]]]),
]
#: Of a parent in eight bits: matrices [K, N] with the runs of q, k and v or of a mixer's packed projection on axis 1,
#: scales [N], an embedding [V, d] as it lies.
SLICES_INT8: list[tuple[str, list[int], list[list[list[int]]]]] = [
    ("int8", [48, 96], [[[0, 31]], [[0, 24], [64, 8], [80, 8]]]),
    ("fp32", [96], [[[0, 24], [64, 8], [80, 8]]]),
    ("int8", [40, 181], [[[0, 12], [20, 12]], [[0, 5], [10, 5], [20, 5], [40, 101], [180, 1]]]),
    ("int8", [97, 48], [[[0, 97]], [[0, 40]]]),
    ("int8", [97, 48], [[[3, 50]], [[0, 48]]]),
    ("int8", [7, 1], [[[1, 2], [4, 3]], [[0, 1]]]),
    ("bf16", [96, 1, 4], [[[0, 10], [64, 32]], [[0, 1]], [[0, 4]]]),
]
_SEED = 20251


def slice_cases() -> dict[str, Any]:
    """A recipe over a file of splitmix64 words, and the sha256 of every slice."""
    return _slices(SLICES, "elastic-weights/1")


def _slices(slices: list[tuple[str, list[int], list[list[list[int]]]]], schema: str) -> dict[str, Any]:
    inputs, offset = {}, 3  # odd on purpose: a file may lay its tensors anywhere
    for i, (dtype, shape, runs) in enumerate(slices):
        kept = [sum(count for _, count in axis) for axis in runs]
        inputs[f"tensor.{i}"] = {
            "file": "../weights/parent.bin", "offset": offset, "dtype": dtype, "parent_shape": shape, "shape": kept,
            "runs": runs,
        }  # fmt: skip
        offset += math.prod(shape) * {"int8": 1, "bf16": 2, "fp16": 2, "fp32": 4}[dtype]
    return {"seed": _SEED, "bytes": offset, "recipe": {"schema": schema, "inputs": inputs}}


def slice_digests(cases: dict[str, Any], folder: Path) -> list[str]:
    """The digests as the Python runtime cuts them; a file is left in `folder`."""
    words = splitmix64(cases["seed"], 0, -(-cases["bytes"] // 8))
    (folder / "parent.bin").write_bytes(words.astype("<u8").tobytes()[: cases["bytes"]])
    recipe = WeightRecipe.from_json(cases["recipe"])
    return [hashlib.sha256(a.tobytes()).hexdigest() for _, a in iter_weights(recipe, folder, external=folder)]


def slice_cases_int8(folder: Path) -> dict[str, Any]:
    """The same of version 2, and what the 4b of that bundle takes on the CPU with such weights."""
    cases = _slices(SLICES_INT8, "elastic-weights/2")
    recipe = WeightRecipe.from_json(cases["recipe"])
    budget = parse_manifest(manifest_12b().encode()).budgets[-1]
    host = [
        {
            "precision": precision, "context": context, "batch": batch,
            "bytes": ram_needed(budget, recipe, context=context, batch=batch, precision=precision).stored,
        }
        for precision, context, batch in HOST_CASES
    ]  # fmt: skip
    return cases | {"nbytes": recipe.nbytes, "host": host, "sha256": slice_digests(cases, folder)}


#: count, seed, scale, step of the logits, draws; the large steps make many of them equal, as bfloat16 does
LOGITS = [
    (64, 1, 12.0, 0.001, 12), (64, 2, 8.0, 1.0, 12), (1000, 3, 20.0, 1e-06, 12), (7, 4, 2000.0, 0.01, 12),
    (131072, 5, 16.0, 0.0625, 1),
]  # fmt: skip
#: temperature, top_k, top_p, seed
SETTINGS = [
    (0, 0, 1, 0), (1, 0, 1, 1), (0.7, 0, 1, 7), (1.5, 5, 1, 8), (1, 1, 1, 9), (0.8, 40, 0.95, 10), (1, 0, 0.5, 11),
    (1, 0, 1e-09, 12), (3.0, 50, 0.999, 13), (0.05, 0, 0.9, 14), (1, 0, 1, (1 << 53) - 1),
    (1.2, (1 << 53) - 1, 0.9, 15),
]  # fmt: skip


def logits(count: int, seed: int, scale: float, step: float, draw: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The logits of a draw, every operation exact or rounded once: the same in every language."""
    words = splitmix64(seed, draw * count, count) >> np.uint64(11)
    values = (words.astype(np.float64) * 2.0**-53 - 0.5) * scale
    return (np.floor(values / step) * step).astype(np.float32)


def sampler_cases(sample: Callable[..., list[int]]) -> dict[str, Any]:
    """Ids for every group of logits and every setting; `sample(rows, temperature=, top_k=, top_p=, seed=)` draws."""
    groups = []
    for count, seed, scale, step, draws in LOGITS:
        rows = [logits(count, seed, scale, step, draw) for draw in range(draws)]
        cases = []
        for temperature, top_k, top_p, own in SETTINGS:
            ids = sample(rows, temperature=temperature, top_k=top_k, top_p=top_p, seed=own)
            cases.append({"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": own, "ids": ids})
        groups.append({"count": count, "seed": seed, "scale": scale, "step": step, "cases": cases})
    return {"groups": groups}


def reference_sample(
    rows: list[np.ndarray[Any, np.dtype[np.float32]]], *, temperature: float, top_k: int, top_p: float, seed: int
) -> list[int]:
    """The algorithm of engines/cpp/include/elastic_runtime/sampler.h, step by step, in plain Python floats."""
    if temperature == 0:
        return [int(row.argmax()) for row in rows]
    return [_draw(row, temperature, top_k, top_p, seed, n) for n, row in enumerate(rows)]


def _draw(
    row: np.ndarray[Any, np.dtype[np.float32]], temperature: float, top_k: int, top_p: float, seed: int, n: int
) -> int:
    scale = 2.0 ** (53 - math.ceil(math.log2(len(row))))
    largest = max(float(x) for x in row)
    weights = [math.floor(_exp((float(x) - largest) / temperature) * scale + 0.5) for x in row]  # sums are exact
    order = sorted(range(len(row)), key=lambda i: (-float(row[i]), i))
    order = order[:top_k] if top_k else order
    if top_p < 1:
        wanted, total, kept = top_p * float(sum(weights[i] for i in order)), 0, 0
        while total < wanted:
            total, kept = total + weights[order[kept]], kept + 1
        order = order[:kept]
    target = (int(splitmix64(seed, n, 1)[0]) >> 11) * 2.0**-53 * float(sum(weights[i] for i in order))
    total = 0
    for i in sorted(order):
        total += weights[i]
        if total > target:
            return i
    raise AssertionError("a running sum that ends above every target")


def _exp(x: float) -> float:
    if x < -708:
        return 0.0
    k = math.floor(x * 1.4426950408889634 + 0.5)
    r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10
    p = 1 / math.factorial(13)
    for i in range(12, -1, -1):
        p = p * r + 1 / math.factorial(i)
    return math.ldexp(p, k)


def call_size_cases() -> dict[str, list[dict[str, int]]]:
    """T of calls, and what it was chosen for: around every length, with room and without, for engines of several."""
    tokens = sorted({max(1, size + step) for size in (1, 16, 64, 256, 512, 1024, 2048) for step in (-1, 0, 1)})
    cases = [
        {"wanted": wanted, "most": wanted + spare, "max_tokens": most, "size": call_size(wanted, wanted + spare, most)}
        for most in (4, 1024, 2048)
        for wanted in tokens
        for spare in (0, 1, 4000)
    ]
    return {"cases": cases}


def all_files(folder: Path) -> dict[str, str]:
    """Name → text of every golden file; `folder` is an empty one for scratch."""
    slices, int8 = slice_cases(), slice_cases_int8(folder)
    slices["sha256"] = slice_digests(slices, folder)
    whole, forms = manifest_12b(), with_forms(manifest_12b())
    made = {
        "choose.json": choose_cases(), "forms.json": forms_cases(forms),
        "slices.json": slices, "slices_int8.json": int8,
        "sampler.json": sampler_cases(reference_sample),
        "errors.json": error_cases(), "session.json": session_cases(),
        "eos.json": eos_cases(folder), "call_size.json": call_size_cases(), "bounds.json": session_request.SIZES,
    }  # fmt: skip
    texts = {name: json.dumps(value, indent=1, ensure_ascii=False) + "\n" for name, value in made.items()}
    return {"manifest_12b.json": whole, "manifest_forms.json": forms} | texts


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for file, text in all_files(Path(scratch)).items():
            (FOLDER / file).write_text(text, "utf-8")
