"""What a session costs over bare onnxruntime: the same model, weights and buffers, decode steps in turns.

    python tests/bench/session_overhead.py BUNDLE [--budget NAME] [--threads 1] [--check]

Bare: `run_with_iobinding` on bindings prepared before, the position written, nothing read. Session: `Session.decode`,
with its checks, the transcript and the logits. Blocks of both alternate, and the median of the blocks' ratios counts.
With --check the program ends with 1 where that is above 10 % for a budget.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from elastic_runtime.bundle import Bundle
from elastic_runtime.ort.open_onnx import open_onnx
from elastic_runtime.session import Session

BLOCKS, STEPS = 40, 20
_MOST = 0.1  # over bare onnxruntime


def main() -> None:
    """Measure and print milliseconds a token, by budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--budget")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    over: list[str] = []
    bundle = Bundle.open(arguments.bundle)
    for budget in bundle.budgets:
        if arguments.budget in (None, budget.name):
            # a context of 256 rows: the caches never grow, so both sides always run the same
            backend = open_onnx(bundle, budget, context=2048, threads=arguments.threads)
            if _measure(budget.name, Session(backend)) > _MOST:
                over.append(budget.name)
    if over:
        print(f"not met: more than {100 * _MOST:.0f} % over bare onnxruntime for {', '.join(over)}")
        sys.exit(1 if arguments.check else 0)


def _measure(name: str, session: Session) -> float:
    """Print a budget's figures and return what the session costs, as a share of bare onnxruntime's time."""
    session.prefill([[1, 2, 3]])
    bare_ms, ours_ms = [], []
    for block in range(BLOCKS):
        session.reset()
        session.prefill([[1, 2, 3]])
        bare = _bare_step(session)
        for ours in (block % 2 == 0, block % 2 == 1):  # neither always has the warmer caches
            (ours_ms if ours else bare_ms).append(_time((lambda: session.decode([65])) if ours else bare))
    own = _own_microseconds(session)
    ratio = statistics.median(ours / bare for ours, bare in zip(ours_ms, bare_ms, strict=True))
    print(
        f"{name:8s} bare {statistics.median(bare_ms):.3f} ms/token, session {statistics.median(ours_ms):.3f} ms/token, "
        f"{100 * (ratio - 1):+.1f} %; of the fastest blocks {100 * (min(ours_ms) / min(bare_ms) - 1):+.1f} %; "
        f"Python alone {own:.0f} us"
    )
    return ratio - 1


def _bare_step(session: Session) -> Callable[[], object]:
    """Onnxruntime alone: the two prepared bindings of a decode step in turns, at positions that advance as a session's
    do, for attention costs more with every row.
    """
    backend = session.backend
    for _ in range(2):  # one for each bank of states
        session.decode([65])
    prepared = [backend._prepared[(1, side)] for side in (0, 1)]  # type: ignore[attr-defined]
    bindings, positions = [p[0] for p in prepared], [p[1][1].array for p in prepared]
    run, side, at = backend.session.run_with_iobinding, 0, len(session.tokens[0])  # type: ignore[attr-defined]

    def step() -> None:
        nonlocal side, at
        positions[side][0] = at
        run(bindings[side])
        side, at = 1 - side, at + 1

    return step


def _own_microseconds(session: Session) -> float:
    """A decode step without the model's run: what is left when other programs' noise is out of it."""

    class Nothing:
        def run_with_iobinding(self, binding: object) -> None:
            """Do not run."""

    session.backend.session = Nothing()  # type: ignore[attr-defined]
    return 1e3 * min(_time(lambda: session.decode([65])) for _ in range(10))


def _time(step: Callable[[], object]) -> float:
    """Milliseconds a step."""
    step()
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - start) * 1e3 / STEPS


if __name__ == "__main__":
    main()
