"""The ops' cases on the card against float64: one process runs all of an op."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_check.place import Place

PLUGINS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Op:
    """An op.

    Attributes:
        folder: its sources.
        program: runs its cases through the C interface.
        plugin_program: through TensorRT's enqueue.
        small: cases that together take every path of its kernels.
    """

    folder: str
    program: str
    plugin_program: str
    small: tuple[str, ...]

    @property
    def name(self) -> str:
        """As findings say it."""
        return self.folder.rpartition("_")[2]

    @property
    def cases(self) -> Any:
        """Module: matrix, long_cases, make_data, errors, tolerances."""
        return importlib.import_module(f"{self.folder}.testing.cases")

    @property
    def runner(self) -> Any:
        """Module: run_cases, write_list, read_list."""
        return importlib.import_module(f"{self.folder}.testing.runner")

    def rows(self, which: str) -> dict[str, Any]:
        """Cases by name.

        `all`; `small`: self.small, and one of every kernel that none of them asks for by name; `some`: these, and
        every third of all; `long`: prompts and caches that are too long to be among all.
        """
        rows: dict[str, Any] = self.cases.long_cases() if which == "long" else self.cases.matrix()
        if which in ("all", "long"):
            return rows
        if which == "some":
            return self.rows("small") | {name: rows[name] for name in list(rows)[::3]}
        chosen = {name: rows[name] for name in self.small}
        kernels = {case.kernel for case in chosen.values()}
        for name, case in rows.items():
            if case.kernel not in kernels:
                kernels.add(case.kernel)
                chosen[name] = case
        return chosen


OPS = tuple(
    op
    for op in (
        Op(
            "mamba2_mixer",
            "case_runner",
            "plugin_runner",
            (
                *("prefill base", "prefill N=30", "prefill N=256", "prefill bfloat16", "length=3 of 201"),
                *("decode base", "decode N=30", "decode N=256", "decode float16", "decode by scan", "P=80, heads=8"),
            ),
        ),
        Op(
            "cached_attention",
            "attention_cases",
            "attention_plugin",
            ("prefill base", "T=3 after 64", "calls that follow each other"),
        ),
    )
    if (PLUGINS / op.folder).is_dir()
)


def run(place: Place) -> None:
    """Checks of the rows of every op.

    Options: `rows`, `small`, `all` or `long`; `stream`, `default` or `own`, one that does not wait for it; `plugin`:
    through TensorRT's enqueue, where the programs for that were built.
    """
    for op in OPS:
        _check(place, op)


def _check(place: Place, op: Op) -> None:
    rows, suffix, program = op.rows(place.options["rows"]), "", place.programs / op.program
    if place.options.get("plugin"):
        program, suffix = place.programs / op.plugin_program, ", plugin"
        # An engine leaves the choice of a kernel to the shape.
        rows = {row: case for row, case in rows.items() if case.kernel == "auto"}
        if not program.is_file():
            place.emit("note", what=program.name, why="not built: TensorRT's headers were not found")
            return
    elif not program.is_file():
        place.emit("skipped", what=f"all cases of {op.name}", why=f"{program} was not built")
        return
    own = place.options.get("stream") == "own"
    suffix += ", own stream" if own else ""
    folder = place.scratch / op.folder
    folder.mkdir()
    results = op.runner.run_cases(
        [str(program), *(["--own-stream"] if own else [])], rows, folder, timeout=max(1.0, 0.6 * place.left())
    )
    for row, case in rows.items():
        emit_check(place, op, f"{op.name} {row}{suffix}", case, results[row])


def emit_check(place: Place, op: Op, what: str, case: Any, result: Any) -> None:
    """A finding about one case; `result`: what came out, or why nothing did."""
    if isinstance(result, str):
        place.emit("check", what=what, errors={}, wrong=result)
        return
    found, bounds = op.cases.errors(case, op.cases.make_data(case), result), op.cases.tolerances(case)
    beyond = [f"{name} {error:g} above {bounds[name]:g}" for name, error in found.items() if not error <= bounds[name]]
    kind = case.dtype if hasattr(case, "dtype") else case.activation
    place.emit("check", what=what, op=op.name, type=kind, errors=found, wrong=", ".join(beyond))
