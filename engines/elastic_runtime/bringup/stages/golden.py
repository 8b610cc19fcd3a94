"""Stage `golden`: the golden run of an engine, decode steps run as the place's mode says."""

from __future__ import annotations

from contextlib import closing

from elastic_runtime.bringup.modes import EAGER
from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.replayed import judge, replay_kept, save
from elastic_runtime.bringup.results import NOT_RUN, Found
from elastic_runtime.format.golden import read_golden
from elastic_runtime.format.paths import inside
from elastic_runtime.verify.replay import BOUNDS


def run(place: Place) -> Found:
    """What `replay_kept` and `judge` give, who recorded decode steps in the end, and the file of the arrays."""
    bundle, budget, _ = place.opened()
    if budget.golden is None:
        return {NOT_RUN: "the bundle has no golden run of this budget (exported with --no-verify)"}
    reference, said = read_golden(inside(bundle.path, budget.golden, budget.golden)), list[str]()
    with closing(place.backend(said.append)) as backend:
        found, arrays = replay_kept(backend, reference, whole_states=bundle.manifest.demo)
        found |= {"graphs": backend.graphs, "said": said}
    found |= judge(found, budget, BOUNDS[bundle.manifest.precision])
    return found | save(place.folder, _file(place.engine, place.mode), arrays, first=_file(place.engine, EAGER))


def _file(engine: str, mode: str) -> str:
    plain = "".join(sign if sign.isalnum() else "-" for sign in engine.removesuffix(".engine"))
    return f"golden-{plain}-{mode}"
