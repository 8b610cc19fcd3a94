"""The forms in which a bundle may hold one budget: in its own precision, and quantised.

6b        the budget, in whichever of its forms fits: unquantised where it does
6b.bf16   unquantised, in the bundle's precision
6b.int8   in eight bits; so that entry of the manifest is called, and its folder
"""

from __future__ import annotations

from collections.abc import Iterable

from elastic_runtime.errors import InputError
from elastic_runtime.format.interface import Precision
from elastic_runtime.format.manifest import BudgetEntry, Quantisation, by_size

AUTO = "auto"


def entry_name(budget: str, quantisation: Quantisation | None) -> str:
    """What the manifest calls a budget in that form."""
    return budget if quantisation is None else f"{budget}.{quantisation}"


def form_name(entry: BudgetEntry, precision: Precision) -> str:
    """What names that entry alone, in a manifest of that precision."""
    return f"{entry.budget}.{entry.quantisation or precision}"


def forms_of(entries: Iterable[BudgetEntry], name: str, precision: Precision) -> tuple[BudgetEntry, ...]:
    """The entries that a name stands for, in the order in which they are chosen; at least one.

    Args:
        entries: of a manifest.
        name: of a budget, of one form of it, or `auto` for all budgets.
        precision: of the manifest, in which an unquantised entry has its matrices.

    Raises:
        InputError: no such budget, or not in that form; it says what there is.
    """
    ordered = sorted(entries, key=by_size)
    if name == AUTO:
        return tuple(ordered)
    found = [entry for entry in ordered if entry.budget == name] or [
        entry for entry in ordered if form_name(entry, precision) == name
    ]
    if not found:
        raise _unknown(ordered, name)
    return tuple(found)


def _unknown(ordered: list[BudgetEntry], name: str) -> InputError:
    budget, _, form = name.rpartition(".")
    others = [entry.name for entry in ordered if entry.budget == budget]
    if others:
        return InputError(
            f"budget {name!r}",
            expected=f"a form in which the bundle has it: {', '.join(others)}",
            found=f"none in {form}",
            todo="name that one, or export the other one into the bundle with --add",
        )
    return InputError(
        f"budget {name!r}",
        expected=f"one of {', '.join(entry.name for entry in ordered)}",
        found="no such budget in the bundle",
        todo="name one of them, or auto for the largest that fits",
    )
