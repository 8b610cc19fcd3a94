"""The mixer's cases on the card against float64: one process runs them all."""

from __future__ import annotations

from mamba2_mixer.testing.cases import Case, errors, make_data, matrix, tolerances
from mamba2_mixer.testing.runner import Outcome, run_cases

from device_check.place import Place

#: Small, and together every kernel and variant.
SMALL = (
    *("prefill base", "prefill N=30", "prefill N=256", "prefill bfloat16", "length=3 of 201"),
    *("decode base", "decode N=30", "decode N=256", "decode float16", "decode by scan", "P=80, heads=8"),
)


def small() -> dict[str, Case]:
    """The rows of SMALL, and of those any kernel of the library that none of them runs."""
    rows = matrix()
    chosen = {name: rows[name] for name in SMALL}
    kernels = {case.kernel for case in chosen.values()}
    for name, case in rows.items():
        if case.kernel not in kernels:
            kernels.add(case.kernel)
            chosen[name] = case
    return chosen


def run(place: Place) -> None:
    """Checks of the rows.

    Options: `rows`, `small` or `all`; `stream`, `default` or `own`, one that does not wait for it; `program`,
    `case_runner` or `plugin_runner`, which calls the plugin's enqueue.
    """
    rows = small() if place.options.get("rows") == "small" else matrix()
    own = place.options.get("stream") == "own"
    name = place.options.get("program", "case_runner")
    if name == "plugin_runner":
        if not (place.programs / name).is_file():
            place.emit("note", what=name, why="not built: TensorRT's headers were not found")
            return
        # An engine leaves the choice of a kernel to the shape.
        rows = {row: case for row, case in rows.items() if case.kernel == "auto"}
    command = [str(place.programs / name), *(["--own-stream"] if own else [])]
    results = run_cases(command, rows, place.scratch, timeout=place.left())
    suffix = f"{', own stream' if own else ''}{', plugin' if name == 'plugin_runner' else ''}"
    for row, case in rows.items():
        emit_check(place, f"{row}{suffix}", case, results[row])


def emit_check(place: Place, what: str, case: Case, result: Outcome) -> None:
    """A finding about one case."""
    if isinstance(result, str):
        place.emit("check", what=what, errors={}, wrong=result)
        return
    found, bounds = errors(case, make_data(case), result), tolerances(case)
    beyond = [f"{name} {error:g} above {bounds[name]:g}" for name, error in found.items() if not error <= bounds[name]]
    place.emit("check", what=what, type=case.activation, errors=found, wrong=", ".join(beyond))
