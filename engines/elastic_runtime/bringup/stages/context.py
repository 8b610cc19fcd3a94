"""Stages `context` and `context-again`: opening an engine without compiled kernels, then with those kept."""

from __future__ import annotations

import time
from contextlib import closing

from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.results import Found
from elastic_runtime.bringup.stages.measuring import Watch
from elastic_runtime.session import Session


def run(place: Place) -> Found:
    """Opening it, and the first calls: seconds, kernels that were compiled, memory that was taken."""
    said: list[str] = []
    with Watch() as watch:
        started = time.perf_counter()
        with closing(place.backend(said.append)) as backend:
            found: Found = {"open_seconds": time.perf_counter() - started, "memory": dict(backend.memory())}
            session, calls = Session(backend), dict[str, list[float]]()
            for tokens in (1, 1, 1, 16, 16):
                if tokens > session.room[0]:  # a small context
                    break
                started = time.perf_counter()
                session.prefill([[1] * tokens])
                calls.setdefault(str(tokens), []).append(time.perf_counter() - started)
            watch.look()
            found |= {"call_seconds": calls, "graphs": backend.graphs, "said": said}
    kept = list((place.folder / "kernels").glob("*.cache"))
    return found | {"taken": watch.taken, "cache_bytes": sum(path.stat().st_size for path in kept)}
