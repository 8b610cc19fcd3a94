"""The file of budgets, `elastic-budgets/1`: read, validated and written.

    {"format": "elastic-budgets/1", "budgets": {"12b": {}, "6b": {"hidden_size": 3584, "skip_layers": [54, 55]}}}

An absent key keeps the parent's value. A list has one entry a layer of its kind *in the parent*, skipped ones too.
An object `proposed` beside `budgets` says that they were found by measuring, and how (`propose/document.py`); it is for
people, and nothing of it is read.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from elastic_export.layers.all_kinds import ELASTIC_AXES, KIND_OF_AXIS
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.axis import Axis
from elastic_export.layers.budget import Budget
from elastic_runtime.errors import InputError, advised
from elastic_runtime.format.jsonfile import json_type, read_json

Named = TypeVar("Named")

FORMAT = "elastic-budgets/1"
FILE_NAME = "elastic_config.json"
PROPOSED = "proposed"
KEYS = (*(axis.key for axis in ELASTIC_AXES), "skip_layers")

#: Bound of a width whose layer kind the parent does not have.
_ANY_WIDTH = (1 << 31) - 1

#: A budget's name is a folder of the bundle, on any operating system, beside what else lies there.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
_RESERVED = re.compile(
    r"all|auto|weights|additional_chat_templates|(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?|.*\.(json|jinja|txt|model|md|tmp|partial)|"
    r"(licen[cs]e|notice|tokenizer).*",
    re.IGNORECASE,
)

_SKETCH = f'{{"format": "{FORMAT}", "budgets": {{"NAME": {{...}}}}}}'
_RENAME = "rename it: the name is a folder of the bundle"
_CHOOSE = "see what there is with elastic-export inspect CHECKPOINT"


def read_budgets(path: Path, parent: Architecture) -> tuple[dict[str, Budget], list[str]]:
    """The budgets of a file, in its order, and warnings about those that are not nested.

    Raises:
        InputError: naming file, budget and key.
    """
    with advised(f"write {_SKETCH}"):
        document = read_json(path)
    return parse_budgets(document, parent, str(path))


def parse_budgets(
    document: Mapping[str, Any], parent: Architecture, subject: str
) -> tuple[dict[str, Budget], list[str]]:
    """`read_budgets` of a document already in memory; errors name `subject`."""
    if document.get("format") != FORMAT:
        found = json_type(document["format"]) if "format" in document else "nothing"
        raise InputError(
            f"{subject}, format", expected=f"the text {FORMAT!r}", found=found, todo=f"begin the file with {_SKETCH}"
        )
    _known_keys(subject, [key for key in document if key != PROPOSED], ("format", "budgets"))
    proposed = document.get(PROPOSED, {})
    if not isinstance(proposed, dict):
        found, todo = json_type(proposed), "take it out: budgets propose writes it"
        raise InputError(f"{subject}, {PROPOSED}", expected="an object", found=found, todo=todo)
    entries = document.get("budgets")
    if not isinstance(entries, dict) or not entries:
        found = "none" if entries in (None, {}) else json_type(entries)
        raise InputError(
            f"{subject}, budgets", expected="an object with at least one budget", found=found, todo=f"write {_SKETCH}"
        )
    _check_names(subject, entries)
    budgets = {name: _Entry(subject, name, value, parent).budget() for name, value in entries.items()}
    origin = [f"{subject}: proposed by measuring, not the vendor's budgets"] if PROPOSED in document else []
    return budgets, origin + nesting_warnings(parent, budgets.values())


def budget_document(parent: Architecture, budget: Budget) -> dict[str, Any]:
    """What the file says of `budget`: only what differs from the parent, a scalar where all layers agree."""
    document: dict[str, Any] = {}
    full = Budget.full(parent, budget.name)
    for axis in ELASTIC_AXES:
        kept = getattr(budget, axis.field)
        if kept != getattr(full, axis.field):
            document[axis.key] = list(kept) if axis.per_layer and len(set(kept)) > 1 else axis.of(budget)
    return document | ({"skip_layers": list(budget.skip_layers)} if budget.skip_layers else {})


def budgets_document(parent: Architecture, budgets: Iterable[Budget]) -> dict[str, Any]:
    """A whole budget file."""
    return {"format": FORMAT, "budgets": {budget.name: budget_document(parent, budget) for budget in budgets}}


def select_budgets(budgets: Mapping[str, Named], request: str) -> list[Named]:
    """The budgets, or what else has their names, of `--budget all|NAME,…`, in the file's order whatever the request's.

    Raises:
        InputError: an unknown name (with the nearest ones), a name twice, all beside a name, or none at all.
    """
    if request.strip() == "all":
        return list(budgets.values())
    names = [name.strip() for name in request.split(",")]
    if "all" in names:  # which no budget is called (check_name)
        found, todo = "'all' among others, and it stands alone", "leave the others out, or all"
        raise InputError("--budget", expected=f"all, or of {', '.join(budgets)}", found=found, todo=todo)
    for index, name in enumerate(names):
        if name not in budgets:
            raise InputError(
                "--budget", expected=f"all, or of {', '.join(budgets)}", found=_shown(name, budgets), todo=_CHOOSE
            )
        if name in names[:index]:
            raise InputError("--budget", expected="every budget once", found=f"{name!r} twice", todo=_CHOOSE)
    return [budget for name, budget in budgets.items() if name in names]


def nesting_warnings(parent: Architecture, budgets: Iterable[Budget]) -> list[str]:
    """One warning for every budget that is not a part of the next larger one by parameters."""
    ordered = sorted(budgets, key=lambda budget: budget.architecture(parent).parameters())
    warnings = []
    for small, large in pairwise(ordered):
        if faults := _not_nested(parent, small, large):
            warnings.append(f"budget {small.name!r} is not nested in {large.name!r}: {'; '.join(faults)}")
    return warnings


def check_name(subject: str, name: str) -> None:
    """A name that can be a folder of the bundle; InputError naming `subject`."""
    if not _NAME.fullmatch(name):
        expected = "1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit and not ending with '.'"
        raise InputError(f"{subject}, budget name", expected=expected, found=json_type(name), todo=_RENAME)
    if _RESERVED.fullmatch(name):
        raise InputError(
            f"{subject}, budget name", expected="a name the bundle does not use", found=repr(name), todo=_RENAME
        )


def _check_names(subject: str, names: Iterable[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        check_name(subject, name)
        if other := seen.get(name.lower()):
            expected = "names that differ by more than upper and lower case"
            raise InputError(
                f"{subject}, budget name", expected=expected, found=f"{other!r} and {name!r}", todo=_RENAME
            )
        seen[name.lower()] = name


def _known_keys(subject: str, value: Iterable[str], known: tuple[str, ...]) -> None:
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
            todo = f"the nearest is {near[0]}" if near else "take it out"
            raise InputError(
                f"{subject}, {key[:60]}", expected=f"one of {', '.join(known)}", found="an unknown key", todo=todo
            )


def _within(value: object, most: int, step: int) -> str:
    """The nearest width that would do, or the key's absence."""
    if type(value) is not int or most < step:
        return "give a width, or leave the key out to keep the parent's"
    return f"{max(1, min(value, most) // step) * step} would do"


def _shown(name: str, budgets: Iterable[str]) -> str:
    lower = {known.lower(): known for known in budgets}
    near = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.4)
    return f"{name!r} (nearest: {', '.join(lower[match] for match in near)})" if near else repr(name)


def _not_nested(parent: Architecture, small: Budget, large: Budget) -> list[str]:
    """What of `small` is not a part of `large`."""
    both = set(small.kept_layers(parent)) & set(large.kept_layers(parent))
    faults = [
        f"{axis.key} {axis.of(small)} > {axis.of(large)}"
        for axis in ELASTIC_AXES
        if not axis.per_layer and axis.of(small) > axis.of(large)
    ]
    for axis in (axis for axis in ELASTIC_AXES if axis.per_layer):
        layers = [layer for layer in parent.layers() if layer.index in both and layer.kind is KIND_OF_AXIS[axis]]
        wider = [i for i, _, k in layers if axis.of(small, k) > axis.of(large, k)]
        if wider:
            faults.append(f"{axis.key} is wider in layers {wider}")
    extra = sorted(set(large.skip_layers) - set(small.skip_layers))
    return faults + ([f"it keeps layers {extra}"] if extra else [])


class _Entry:
    """One budget of the file under validation."""

    def __init__(self, file: str, name: str, value: object, parent: Architecture) -> None:
        self._subject, self._name, self._parent = f"{file}, budget {name!r}", name, parent
        if not isinstance(value, dict):
            todo = "write {} for the parent itself, or what the budget keeps of it"
            raise InputError(self._subject, expected="an object", found=json_type(value), todo=todo)
        _known_keys(self._subject, value, KEYS)
        self._value: dict[str, Any] = value

    def budget(self) -> Budget:
        parent = self._parent
        widths = {axis.field: self._axis(axis) for axis in ELASTIC_AXES}
        budget = Budget(name=self._name, skip_layers=self._skip_layers(), **widths)
        if len(budget.skip_layers) == len(parent.pattern):
            expected = f"at least one of the {len(parent.pattern)} layers kept"
            raise self._fault(
                "skip_layers", expected, "all of them skipped", "take the layers that stay out of the list"
            )
        return budget

    def _fault(self, key: str, expected: str, found: str, todo: str) -> InputError:
        return InputError(f"{self._subject}, {key}", expected=expected, found=found, todo=todo)

    def _width(self, key: str, value: object, most: int, step: int = 1, of: str = "") -> int:
        multiple = f" and a multiple of {of}" if of else ""
        if type(value) is not int or not 1 <= value <= most or value % step:
            expected = f"an integer from 1 to the parent's {most}{multiple}"
            raise self._fault(key, expected, json_type(value), _within(value, most, step))
        return value

    def _axis(self, axis: Axis) -> Any:
        """What the budget keeps of an axis: the parent's where it says nothing."""
        whole, step = getattr(self._parent, axis.field), axis.step(self._parent)
        of = "" if axis.groups is None else f"the {step} {axis.groups.called}"
        if axis.key not in self._value:
            return whole
        if axis.per_layer:
            return self._per_layer(axis.key, whole, step, of)
        return self._width(axis.key, self._value[axis.key], whole, step, of)

    def _per_layer(self, key: str, parent_values: tuple[int, ...], step: int, of: str) -> tuple[int, ...]:
        value = self._value[key]
        if not isinstance(value, list):
            width = self._width(key, value, min(parent_values, default=_ANY_WIDTH), step, of)
            return (width,) * len(parent_values)
        if len(value) != len(parent_values):
            expected = f"{len(parent_values)} entries, one a layer of that kind in the parent"
            todo = f"give all {len(parent_values)}, those of skipped layers too, or one number for all"
            raise self._fault(key, expected, json_type(value), todo)
        return tuple(
            self._width(f"{key}[{k}]", item, most, step, of)
            for k, (item, most) in enumerate(zip(value, parent_values, strict=True))
        )

    def _skip_layers(self) -> tuple[int, ...]:
        value, last = self._value.get("skip_layers", []), len(self._parent.pattern) - 1
        if not isinstance(value, list):
            todo = "write the indices of the parent's layers in brackets: [54, 55]"
            raise self._fault("skip_layers", "a list of layer indices", json_type(value), todo)
        for index, item in enumerate(value):
            if type(item) is not int or not 0 <= item <= last:
                todo = f"count the layers from 0 as the pattern {self._parent.pattern} does"
                raise self._fault(f"skip_layers[{index}]", f"a layer index from 0 to {last}", json_type(item), todo)
            if item in value[:index]:
                raise self._fault(f"skip_layers[{index}]", "every layer once", f"{item} again", "take it out once")
        return tuple(sorted(value))
