"""Stage `ort`: the golden run of a budget on the card without any engine, its float32 twin under onnxruntime's CUDA."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.replayed import judge, replay_kept, save
from elastic_runtime.bringup.results import NOT_RUN, Found
from elastic_runtime.bringup.stages.measuring import Watch
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import card
from elastic_runtime.errors import UnavailableError
from elastic_runtime.format.golden import Golden, read_golden
from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.format.paths import inside
from elastic_runtime.ort.open_onnx import OnnxCard, card_needed, onnx_card, open_onnx, plan_card
from elastic_runtime.verify.replay import BOUNDS

if TYPE_CHECKING:  # needs onnxruntime, which an engine's consumer does not have
    from elastic_runtime.ort.backend_onnx import OnnxBackend


def run(place: Place) -> Found:
    """As stage `golden`; and which provider ran which ops, and memory beside what opening reckons with."""
    bundle = Bundle.open(place.bundle, external=place.external)
    budget = bundle.budget(place.budget)
    if budget.golden is None:
        return {NOT_RUN: "the bundle has no golden run of this budget (exported with --no-verify)"}
    reference = read_golden(inside(bundle.path, budget.golden, budget.golden))
    try:
        where = onnx_card(card(), vram=None, weights="auto")
        plan_card(bundle, budget, where, context=reference.reach, rows=1)
    except UnavailableError as error:
        return {NOT_RUN: str(error)}
    return _replayed(place, bundle, budget, reference, where)


def _replayed(place: Place, bundle: Bundle, budget: BudgetEntry, reference: Golden, where: OnnxCard) -> Found:
    tokens, prefix = int(reference.tokens.max()), place.folder / f"ort-{budget.name}"
    with Watch() as watch:
        backend: OnnxBackend = open_onnx(  # type: ignore[assignment]  # the only kind that it opens
            bundle, budget, context=reference.reach, rows=1, batch=1, max_tokens=tokens, place=where, profile=prefix
        )
        with closing(backend):
            found, arrays = replay_kept(backend, reference, whole_states=bundle.manifest.demo)
            watch.look()
            held = dict(backend.memory())
            profile = Path(backend.session.end_profiling())
    found |= judge(found, budget, BOUNDS["twin"])
    found["nodes"] = providers(json.loads(profile.read_text("utf-8")))
    profile.unlink()
    recipe = None if budget.weights is None else bundle.recipe(budget)
    precision = bundle.manifest.precision
    found["memory"] = {
        "taken_at_most": watch.taken,
        "reckoned": card_needed(budget, recipe, context=reference.reach, batch=1, precision=precision),
        "by_the_runtime": held,
        "beside_those": None if watch.taken is None else watch.taken - sum(held.values()),
    }
    return found | save(place.folder, prefix.name, arrays, first=prefix.name)


def providers(events: list[dict[str, Any]]) -> Found:
    """By provider and op: how many nodes of the model it ran, of the events of onnxruntime's profile."""
    nodes = {
        (event["args"]["provider"], event["args"]["op_name"], event["name"])
        for event in events
        if event.get("cat") == "Node" and event.get("args", {}).get("provider")
    }
    found: dict[str, Counter[str]] = {}
    for provider, op, _ in sorted(nodes):
        found.setdefault(provider, Counter())[op] += 1
    return {provider: dict(counts) for provider, counts in found.items()}
