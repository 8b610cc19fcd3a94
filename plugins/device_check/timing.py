"""Times of work on a card: captured into a graph, replayed in turns, medians."""

from __future__ import annotations

import gc
import statistics as numbers
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

Work = Callable[[], object]
#: Rounds in which all entrants run one after the other, samples of each in a round, and their length at least.
ROUNDS, SAMPLES, SAMPLE_MS = 5, 6, 2.0
#: Of which so long a sample suffices.
LONG_MS = 20.0


class Clock:
    """On the CPU: work is called, and the wall's time taken. For proving the stages where there is no card, which one
    round does.
    """

    rounds = 1

    def capture(self, works: Sequence[Work]) -> Work:
        """All works in order, as one thing to replay."""
        return lambda: [work() for work in works]

    def milliseconds(self, replay: Work, times: int) -> float:
        """Of one replay, the mean of `times` in a row."""
        begun = time.perf_counter()
        for _ in range(times):
            replay()
        return (time.perf_counter() - begun) * 1e3 / times

    def empty(self) -> None:
        """Gives back what finished work held."""


class CudaClock(Clock):
    """Work is captured into a CUDA graph, so that launches cost nobody anything; time is between two events."""

    rounds = ROUNDS

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()

    def capture(self, works: Sequence[Work]) -> Work:  # noqa: D102
        torch.cuda.synchronize()  # inputs were made on another stream
        with torch.cuda.stream(self.stream):
            for work in works:  # modules load and tuners tune outside the capture
                work()
        self.stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            for work in works:
                work()
        return graph.replay

    def milliseconds(self, replay: Work, times: int) -> float:  # noqa: D102
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        with torch.cuda.stream(self.stream):
            begin.record()
            for _ in range(times):
                replay()
            end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / times

    def empty(self) -> None:  # noqa: D102
        torch.cuda.synchronize()
        gc.collect()
        torch.cuda.empty_cache()
        if cupy := sys.modules.get("cupy"):  # which float64 is computed with
            cupy.get_default_memory_pool().free_all_blocks()


def make_clock(device: str) -> Clock:
    """For `cuda` or `cpu`."""
    return CudaClock() if device == "cuda" else Clock()


def statistics(samples: Sequence[float]) -> dict[str, float]:
    """Median, and the tenth and the ninetieth of a hundred."""
    ordered = sorted(samples)
    last = len(ordered) - 1
    return {
        "median": numbers.median(ordered),
        "p10": ordered[round(0.1 * last)],
        "p90": ordered[round(0.9 * last)],
    }


def compete(clock: Clock, replays: Mapping[str, Work]) -> dict[str, dict[str, Any]]:
    """Statistics in milliseconds of a replay by entrant: in turns, so that the card's clocks change for all alike."""
    times = {}
    for name, replay in replays.items():
        clock.milliseconds(replay, 2)
        times[name] = max(1, min(50, round(SAMPLE_MS / max(1e-3, clock.milliseconds(replay, 2)))))
    samples: dict[str, list[float]] = {name: [] for name in replays}
    for _ in range(clock.rounds):
        for name, replay in replays.items():
            clock.milliseconds(replay, 1)  # what the entrant before left in the caches is gone
            samples[name].append(clock.milliseconds(replay, times[name]))
            more = SAMPLES - 1 if samples[name][0] < LONG_MS else 0
            samples[name] += [clock.milliseconds(replay, times[name]) for _ in range(more)]
    return {name: {**statistics(found), "samples": len(found)} for name, found in samples.items()}
