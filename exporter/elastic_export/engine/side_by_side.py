"""How many engines are built side by side, where nobody says.

A build process keeps one processor busy and none more (isolation.py), so processors are the one bound; memory is the
other: a build that the kernel kills for want of it costs more than one that waited.
"""

from __future__ import annotations

from elastic_export.plan.machine import free_memory, processors

#: Bytes of memory for one build whose weights are inputs: a native engine of a 12B takes about 1 GiB.
BUILD_MEMORY = 3 << 29


def builds_at_once(*, weights_inside: bool) -> int:
    """As `builds_on`, on this machine."""
    memory = free_memory()
    return builds_on(processors(), None if memory is None else memory.free, weights_inside=weights_inside)


def builds_on(processors: int, free: int | None, *, weights_inside: bool) -> int:
    """As many as a machine has processors and free bytes of memory for (None: nobody tells); one where the weights are
    inside the engines, which take three times the weights.
    """
    if weights_inside:
        return 1
    fitting = processors if free is None else free // BUILD_MEMORY
    return max(1, min(processors, fitting))
