"""A golden run with everything kept: not whether it passes, but what every call gave and how far off that is.

Arrays, by name: `logits.<row>.<call>` float16 [V], `<state>.<row>.<call>` the sketch of a state after that call
(format/sketch.py), and of the demo `<state>.<row>` its states after the last one as float32, caches as far as
the run reaches.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from elastic_runtime.backend import Backend
from elastic_runtime.bringup.results import Found, number
from elastic_runtime.format.golden import Golden
from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.format.sketch import relative_error, sketch, written_rows
from elastic_runtime.verify.replay import Bounds

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


def replay_kept(backend: Backend, run: Golden, *, whole_states: bool) -> tuple[Found, Arrays]:
    """Run every call, one row after the other.

    Args:
        backend: what runs it, one row at a time.
        run: the golden run.
        whole_states: keep the states after the last call whole too.

    Returns:
        `calls`, an entry each with row, call, `off` (relative L2 of the logits), `ids` (the likeliest, here and in the
        reference) and `not_finite` (how many logits); `states`, by name how far off it is after the last call;
        `not_finite`, by array how many numbers are nan or inf, where any. Then the arrays.
    """
    calls, arrays, wrong = list[Found](), Arrays(), dict[str, int]()
    last: dict[str, list[Array]] = {}
    for row, one in ((row, slice(row, row + 1)) for row in range(len(run.ids))):
        backend.start(1)
        for call in range(run.calls):
            length = run.length[call][one]
            logits = backend.call(run.call_ids(call)[one], run.position[call][one], length)[0]
            _keep(arrays, wrong, f"logits.{row}.{call}", _narrow(logits), logits)
            if length[0]:
                calls.append({"row": row, "call": call, **_compared(logits, run.logits[call][row])})
            states = backend.states()
            for name, values in states.items():
                seen = np.asarray(_specified(name, values, run.position[call][one] + length), np.float32)
                _keep(arrays, wrong, f"{name}.{row}.{call}", sketch(seen), seen)
        for name, values in states.items():
            last.setdefault(name, []).append(np.asarray(_within(name, values, run), np.float32))
    if whole_states:
        arrays |= {f"{name}.{row}": values for name, rows in last.items() for row, values in enumerate(rows)}
    return {"calls": calls, "states": _states_off(last, run), "not_finite": wrong}, arrays


def judge(found: Found, budget: BudgetEntry, bounds: Bounds) -> Found:
    """What of it to look at first: the worst logits, the first state beyond the bound in the order of the layers.

    Args:
        found: by `replay_kept`.
        budget: that was run.
        bounds: of what computed.
    """
    calls, states = found["calls"], found["states"]
    layers = {entry.name: entry.parent_layer for entry in budget.states}
    in_order = sorted(states, key=lambda name: (layers.get(name, -1), name))
    beyond = [name for name in in_order if not _size(states[name]) <= bounds.states]
    logits = max((_size(entry["off"]) for entry in calls), default=0.0)
    return {
        "worst_logits": number(logits),
        "worst_state": number(max((_size(off) for off in states.values()), default=0.0)),
        "first_state_beyond": {"name": beyond[0], "parent_layer": layers.get(beyond[0])} if beyond else None,
        "same_ids": sum(entry["ids"][0] == entry["ids"][1] for entry in calls),
        "within_bounds": logits <= bounds.logits and not beyond and not found["not_finite"],
        "bounds": {"logits": bounds.logits, "states": bounds.states},
    }


def save(folder: Path, name: str, arrays: Arrays, *, first: str) -> Found:
    """Write `<name>.npz`, without what `<first>.npz` holds already, bit for bit: another way of running the same.

    Returns:
        `file`, and where the first one is there which of its arrays `differ`.
    """
    kept: dict[str, Any] = dict(arrays)
    known, base = folder / f"{first}.npz", Arrays()
    if name != first and known.is_file():
        with np.load(known) as file:
            base = {key: file[key] for key in file.files}
        kept = {key: array for key, array in arrays.items() if not _same(array, base.get(key))}
    np.savez_compressed(folder / f"{name}.npz", **kept)
    return {"file": f"{name}.npz", **({"others_in": f"{first}.npz", "differ": sorted(kept)} if base else {})}


def _keep(arrays: Arrays, wrong: dict[str, int], name: str, kept: Array, values: Array) -> None:
    arrays[name] = kept
    if count := int(values.size - np.isfinite(values).sum()):
        wrong[name] = count


def _compared(logits: Array, reference: Array) -> Found:
    wanted = reference.astype(np.float64)
    off = float(np.linalg.norm(logits.astype(np.float64) - wanted) / np.linalg.norm(wanted))
    return {
        "off": number(off),
        "ids": [int(logits.argmax()), int(reference.argmax())],
        "not_finite": int(logits.size - np.isfinite(logits).sum()),
    }


def _states_off(last: Mapping[str, list[Array]], run: Golden) -> Found:
    """By name; a state that only one side has is off by inf."""
    off = {name: number(float("inf")) for name in sorted({*last, *run.states})}
    for name in last.keys() & run.states.keys():
        values = np.concatenate(last[name])
        off[name] = number(relative_error(sketch(_specified(name, values, run.ends)), run.states[name]))
    return off


def _within(name: str, values: Array, run: Golden) -> Array:
    """A cache cut to what the run reaches: one of the whole context may be larger than main memory, a row each."""
    return values[:, :, : int(run.ends.max())] if "cache" in name else values


def _specified(name: str, values: Array, ends: npt.NDArray[np.int64]) -> Array:
    return written_rows(values, ends) if "cache" in name else values


def _narrow(logits: Array) -> Array:
    with np.errstate(over="ignore"):  # inf, of which the counts tell
        return logits.astype(np.float16)


def _size(off: float | str) -> float:
    """Of a number for JSON; nan is worse than any."""
    value = float(off)
    return float("inf") if np.isnan(value) else value


def _same(array: Array, other: Array | None) -> bool:
    """Bit for bit: nan is the same as nan."""
    return other is not None and array.dtype == other.dtype and array.tobytes() == other.tobytes()
