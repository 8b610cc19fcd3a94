"""Cases of a bundle that holds budgets in both forms: what a name stands for, and what `choose` takes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from elastic_runtime.errors import InputError
from elastic_runtime.fit.choose import choose
from elastic_runtime.format.forms import forms_of
from elastic_runtime.format.manifest import BudgetEntry, Manifest
from elastic_runtime.format.manifest_reader import parse_manifest

GIB = 1 << 30
NAMES = (
    "auto", "12b", "12b.int8", "12b.bf16", "9b", "9b.int8", "9b.bf16", "4b", "4b.int8", "4b.bf16", "4b.fp8", "6b",
    "6b.int8", "12b.int8.int8", ".int8", "int8", "", "it's", "9B",
)  # fmt: skip


def with_forms(text: str) -> str:
    """A manifest with its budgets in both forms, but for the 4b, which it has in int8 alone, under the name that
    earlier exports gave that; and for the 9b, of which another budget has as many parameters and a name in between.
    """
    manifest = parse_manifest(text.encode())
    budgets = []
    for budget in manifest.budgets:
        quantised = _in_eight_bits(budget, "4b" if budget.name == "4b" else f"{budget.name}.int8")
        budgets += [quantised] if budget.name == "4b" else [quantised, budget]
    nine = next(budget for budget in manifest.budgets if budget.name == "9b")
    budgets.append(_renamed(nine, "9b-wide"))
    return _listed(manifest, budgets).to_json()


def _in_eight_bits(budget: BudgetEntry, name: str) -> BudgetEntry:
    return replace(_renamed(budget, name), weight_bytes=budget.parameters, quantisation="int8")


def _renamed(budget: BudgetEntry, name: str) -> BudgetEntry:
    engines = tuple(replace(e, file=e.file.replace(budget.name, name, 1)) for e in budget.engines)
    return replace(budget, name=name, model=f"{name}/model.onnx", engines=engines)


def _listed(manifest: Manifest, budgets: list[BudgetEntry]) -> Manifest:
    some, paths = manifest.files[0], [path for b in budgets for path in (b.model, *(e.file for e in b.engines))]
    return replace(manifest, budgets=tuple(budgets), files=tuple(replace(some, path=path) for path in paths))


def forms_cases(text: str) -> dict[str, Any]:
    """The entries of every name, or what is said where there are none; and which of them each memory gets."""
    manifest = parse_manifest(text.encode())
    names, chosen = [_answer(name, lambda n=name: _names(manifest, n)) for name in NAMES], []
    for name in ("auto", "12b", "9b", "9b.bf16", "4b"):
        for vram in (8 * GIB, 10 * GIB, 12 * GIB, 14 * GIB, 16 * GIB, 20 * GIB, 24 * GIB, 32 * GIB):
            choice = choose(forms_of(manifest.budgets, name, manifest.precision), vram=vram, context=16384)
            found = choice.chosen
            chosen.append({
                "name": name, "vram": vram, "context": 16384,
                "budget": found and found.budget.name, "explain": choice.explain(),
            })  # fmt: skip
    return {"manifest": "manifest_forms.json", "names": names, "choose": chosen}


def _names(manifest: Manifest, name: str) -> list[str]:
    return [entry.name for entry in forms_of(manifest.budgets, name, manifest.precision)]


def _answer(name: str, ask: Callable[[], list[str]]) -> dict[str, Any]:
    try:
        return {"name": name, "entries": ask(), "subject": None, "expected": None, "found": None}
    except InputError as error:
        said = {"subject": error.subject, "expected": error.expected, "found": error.found}
        return {"name": name, "entries": None, **said}
