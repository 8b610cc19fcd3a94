"""A page of the report, to paste where a zip does not go: a line a stage and the numbers that it has room for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from elastic_runtime.bringup.plan import Step
from elastic_runtime.bringup.results import NOT_RUN, Found
from elastic_runtime.fit.vram import GIB, gib

_LONGEST = 160  # characters of a value


def summary(notes: Sequence[str], steps: Sequence[Step]) -> str:
    """What was said, then every stage."""
    lines = [*notes, ""]
    for step in steps:
        lines.append(step.text())
        if step.found and NOT_RUN not in step.found:
            lines += [f"    {line}" for line in _details(step)]
    return "\n".join(lines) + "\n"


def _details(step: Step) -> Iterator[str]:
    try:
        yield from _DETAILS.get(step.task.stage, _values)(step.found)
    except Exception as error:  # a report of another tool that has another form may not cost the page and the zip
        yield f"no details: {type(error).__name__}: {error}"


def _machine(found: Found) -> Iterator[str]:
    yield f"{found['system']}, Python {found['python']}, {gib(found['free_ram'])} GiB of memory free"
    yield " ".join(f"{name} {version}" for name, version in found["packages"].items())
    if failed := found.get("nvidia_smi_failed"):
        yield f"nvidia-smi: {failed}"


def _card(found: Found) -> Iterator[str]:
    if driver := found["driver_cuda"]:
        yield f"driver of CUDA {'.'.join(map(str, driver))}"
    if "no_card" in found:
        yield found["no_card"]
    else:
        yield f"{gib(found['card']['free'])} GiB of {gib(found['card']['total'])} free"


def _device(found: Found) -> Iterator[str]:
    sound = found["copies_equal"] and found["rows_equal"] and found["graph_ran"]
    yield "copies, rows and a recorded step are right" if sound else f"WRONG: {json.dumps(found)}"
    rates = {name: value for name, value in found.items() if name.endswith("_bytes_per_second")}
    yield ", ".join(f"{name.removesuffix('_bytes_per_second')} {_rate(value)}" for name, value in rates.items())
    yield f"of too much memory: {found['refused'] or 'it was given'}"


def _engine(found: Found) -> Iterator[str]:
    facts = found["facts"]
    yield f"{len(facts['tensors'])} tensors, scratch {facts['scratch']} bytes, {facts['aux_streams']} more streams"


def _context(found: Found) -> Iterator[str]:
    yield f"opened in {found['open_seconds']:.2f} s; {found['cache_bytes']} bytes of kernels are kept"
    for tokens, times in found["call_seconds"].items():
        yield f"calls of {tokens}: {', '.join(map(_milli, times))}"
    yield from found["said"]


def _golden(found: Found) -> Iterator[str]:
    bounds, calls = found["bounds"], len(found["calls"])
    yield (
        f"{'within' if found['within_bounds'] else 'BEYOND'} the bounds: logits off by "
        f"{_short(found['worst_logits'])} at most ({bounds['logits']:g}), states by {_short(found['worst_state'])} "
        f"({bounds['states']:g}), {found['same_ids']} of {calls} likeliest ids the same"
    )
    if first := found["first_state_beyond"]:
        yield f"the first state beyond: {first['name']}, of layer {first['parent_layer']} of the parent"
    if wrong := found["not_finite"]:
        name = next(iter(wrong))
        yield f"nan or inf in {len(wrong)} arrays, the first {name}: {wrong[name]}"
    if "graphs" in found:
        yield f"decode steps recorded: {found['graphs']}"
    if "differ" in found:
        yield f"{len(found['differ'])} arrays differ from those in {found['others_in']}"


def _ort(found: Found) -> Iterator[str]:
    yield from _golden(found)
    for provider, ops in found["nodes"].items():
        yield f"{provider}: {sum(ops.values())} nodes ({json.dumps(ops)[:_LONGEST]})"
    memory = found["memory"]
    if memory["taken_at_most"] is not None:
        beside = f"{memory['beside_those'] / GIB:.2f}"
        yield (
            f"{gib(memory['taken_at_most'])} GiB taken, {gib(memory['reckoned'])} reckoned; {beside} GiB of it are "
            "neither weights nor states"
        )


def _speed(found: Found) -> Iterator[str]:
    if upload := found["upload"]:
        yield f"weights: {upload['bytes'] / 1e6:.1f} MB at {_rate(upload['bytes_per_second'])}"
    yield f"opened in {found['open_seconds']:.2f} s"
    for name in ("decode_seconds", "sample_seconds"):
        for where, times in found[name].items():
            label = f"decode at {where}" if name == "decode_seconds" else f"sampling, {where}"
            enqueue = f", {_milli(times['enqueue']['median'])} to hand it over" if times.get("enqueue") else ""
            yield f"{label}: median {_milli(times['median'])}{enqueue}, p95 {_milli(times['p95'])}"
    for tokens, times in found["prefill_seconds"].items():
        yield f"prefill of {tokens}: first {_milli(times[0])}, then {' '.join(map(_milli, times[1:]))}"
    memory = found["memory"]
    taken = "unknown" if memory["taken_at_most"] is None else f"{gib(memory['taken_at_most'])} GiB"
    yield f"memory: {taken} taken at most, {gib(memory['reckoned']['total'])} GiB reckoned"


def _kernels(found: Found) -> Iterator[str]:
    report = found["report"]
    yield f"{report['machine']}: {'all correct' if report['passed'] else 'NOT correct'}"
    for part in report.values():
        if isinstance(part, dict):
            yield from part.get("failures", [])[:3]


def _values(found: Found) -> Iterator[str]:
    for name, value in found.items():
        yield f"{name} {json.dumps(value)[:_LONGEST]}"


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def _rate(bytes_per_second: float) -> str:
    return f"{bytes_per_second / 1e9:.3g} GB/s"


def _milli(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


_DETAILS: dict[str, Callable[[Found], Iterator[str]]] = {
    "machine": _machine,
    "card": _card,
    "device": _device,
    "engine": _engine,
    "context": _context,
    "context-again": _context,
    "golden": _golden,
    "ort": _ort,
    "speed": _speed,
    "kernels": _kernels,
}
