"""Which engines a request comes to: targets that can share one do."""

from __future__ import annotations

from dataclasses import dataclass

from elastic_export.plan.ops_modes import Library, OpsPlan
from elastic_runtime.fit.targets import Target
from elastic_runtime.format.interface import OpsMode, Precision


@dataclass(frozen=True)
class EngineJob:
    """One engine: the targets that share it, the compute capabilities it holds, its context, its ops mode.

    `library` goes into it. `word` is what its files' names say of it besides the target, where there are several.
    """

    targets: tuple[Target, ...]
    capabilities: tuple[str, ...]
    max_context: int
    ops: OpsMode = "plugin"
    library: Library | None = None
    word: str = ""

    def file(self, target: Target) -> str:
        """Name of the engine's file for one of its targets."""
        return f"{target.name}{self.word}.engine"


def engine_jobs(
    targets: tuple[Target, ...], precision: Precision, contexts: tuple[int, ...], ops: OpsPlan
) -> tuple[EngineJob, ...]:
    """The engines of a budget with layers of every kind: of each context and ops mode one for the targets of the same
    compute capabilities.
    """
    groups: dict[tuple[str, ...], list[Target]] = {}
    for target in targets:
        groups.setdefault(tuple(target.capabilities(precision)), []).append(target)
    return tuple(
        EngineJob(
            tuple(members),
            tuple(f"SM{name.replace('.', '')}" for name in names),
            context,
            mode,
            ops.libraries.get(names) if mode == "plugin" else None,
            (f".{context}" if len(contexts) > 1 else "") + (f".{mode}" if mode != ops.modes[0] else ""),
        )
        for names, members in groups.items()
        for context in sorted(contexts)
        for mode in ops.modes
        if ops.builds(mode, context)
    )
