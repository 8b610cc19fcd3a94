"""Checks entrants on one set of buffers against float64, then times those that are right, in turns, on all sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

from device_check.place import Place
from device_check.timing import Clock, Work, compete, make_clock

#: What precedes the name of a kernel of ours.
OURS = "elastic "
#: Sets of buffers are together so many times the cache; three at least.
CACHES, LEAST_SETS = 2.5, 3

Set = TypeVar("Set")


class RefusalError(Exception):
    """A kernel of ours does not run this size, and says so."""


@dataclass(frozen=True)
class Entrant(Generic[Set]):
    """Something that computes the op.

    Attributes:
        make: a work on a set, which may be captured and returns what `Problem.errors` takes.
        limits: of its errors; beyond them it is wrong.
        peer: not of ours: wrong, it is only not timed.
    """

    who: str
    make: Callable[[Set], Work]
    limits: Mapping[str, float]
    peer: bool = False


class Problem(Protocol[Set]):
    """One size of one op."""

    op: str
    name: str
    sets: list[Set]
    #: Of every finding `time`: batch, tokens, bytes that must at least move, floating-point operations, ...
    facts: Mapping[str, Any]

    def entrants(self) -> Sequence[Entrant[Set]]:
        """Ours and peers."""

    def expect(self) -> None:
        """Works out float64's answer for the first set as it was made, which `errors` compares with."""

    def reset(self) -> None:
        """The first set as it was made, and NaN where a call has to write."""

    def errors(self, result: Any) -> dict[str, float]:
        """Of a work's result on the first set, against float64."""


def count_sets(device: str, bytes_: int, most: int) -> int:
    """Sets of so many bytes that the card's cache does not hold them."""
    if device != "cuda":
        return LEAST_SETS
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return max(LEAST_SETS, min(most, -(-int(CACHES * cache) // bytes_)))


class Bench:
    """Measures problems; what it finds goes to the place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.clock: Clock = make_clock(place.device)
        self.right: set[tuple[str, str]] = set()

    def measure(self, problem: Problem[Any]) -> None:
        """Findings `check` of all entrants, `time` of those that are right."""
        problem.expect()
        replays = {}
        for entrant in problem.entrants():
            if self._right(problem, entrant):
                self.right.add((problem.name, entrant.who))
                try:
                    replays[entrant.who] = self.clock.capture([entrant.make(s) for s in problem.sets])
                except Exception as error:
                    self._leave_out(f"{problem.name}, {entrant.who}", error)
        for who, found in compete(self.clock, replays).items():
            each = 1e3 / len(problem.sets)
            self.place.emit(
                "time",
                op=problem.op,
                what=problem.name,
                who=who,
                us=round(each * found["median"], 3),
                p10=round(each * found["p10"], 3),
                p90=round(each * found["p90"], 3),
                samples=found["samples"],
                sets=len(problem.sets),
                **problem.facts,
            )

    def trace(self, problem: Problem[Any]) -> None:
        """Findings `kernels` of those that `measure` found right at this size: microseconds of each kernel of a call.

        To come after everything that is timed: the driver's tracing may go on costing time once it was on.
        """
        for entrant in problem.entrants():
            if (problem.name, entrant.who) in self.right:
                try:
                    kernels = _traced([entrant.make(s) for s in problem.sets])
                except Exception as error:
                    self._leave_out(f"{problem.name}, kernels of {entrant.who}", error)
                else:
                    self.place.emit("kernels", op=problem.op, what=problem.name, who=entrant.who, kernels=kernels)

    def peers(self, find: Callable[[], Any]) -> Any:
        """What `find` returns, or None: whatever a peer runs into, ours is measured."""
        if self.place.device != "cuda":
            return None
        try:
            return find()
        except Exception as error:
            self._leave_out("peers", error)
            return None

    def _right(self, problem: Problem[Any], entrant: Entrant[Any]) -> bool:
        what = f"{problem.name}, {entrant.who}"
        problem.reset()
        try:
            errors = problem.errors(entrant.make(problem.sets[0])())
        except RefusalError as refusal:
            self.place.emit("note", what=what, why=str(refusal))
            return False
        except Exception as error:
            errors, wrong = {}, f"{type(error).__name__}: {error}"
        else:
            beyond = {name: e for name, e in errors.items() if not e <= entrant.limits[name]}
            wrong = ", ".join(f"{name} {e:g} above {entrant.limits[name]:g}" for name, e in beyond.items())
        self.place.emit("check", what=what, errors=errors, wrong=wrong, **({"peer": True} if entrant.peer else {}))
        problem.reset()
        return not wrong

    def _leave_out(self, what: str, error: Exception) -> None:
        self.place.emit("skipped", what=what, why=f"{type(error).__name__}: {error}"[:500])


def _traced(works: Sequence[Work]) -> list[dict[str, Any]]:
    """Kernels of a work, the longest first: name, us, launches; means over the works."""
    for work in works:
        work()  # tuners tune before
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as traced:
        for work in works:
            work()
        torch.cuda.synchronize()
    found = [(e.key, e.self_device_time_total / len(works), e.count / len(works)) for e in traced.key_averages()]
    kernels = [{"name": name[:100], "us": round(us, 2), "launches": count} for name, us, count in found if us > 0]
    return sorted(kernels, key=lambda kernel: -kernel["us"])
