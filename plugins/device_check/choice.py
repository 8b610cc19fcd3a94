"""What a run says of the kernel that `auto` should take for a prefill: a line a kind of output and width of heads, and
the goal's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_OURS, _PEER = "elastic ", "mamba_ssm"
#: P of the 12B's heads. Reports made before others were timed do not say it.
WIDTH = 80
#: A prefill of GOAL_TOKENS tokens of such heads is to be so many times as fast as the best of mamba_ssm's chunks in the
#: same run.
GOAL, GOAL_TOKENS = 1.5, 8192
#: By this share a kernel must be quicker to be taken for it. An estimate: how far runs differ is not measured.
MARGIN = 0.02

Times = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Contest:
    """Two kernels that compute the same: with a copy of the state in shared memory, and with it in registers alone.

    `auto` takes the first unless a card says otherwise.

    Attributes:
        kind: which calls they are for.
    """

    kind: str
    copied: str
    resident: str

    def quicker(self, times: Times) -> str | None:
        """The kernel to take at a size; `times` by who. None where one of both was not timed."""
        copied, resident = (times.get(_OURS + name) for name in (self.copied, self.resident))
        if copied is None or resident is None:
            return None
        return self.resident if resident["us"] < (1 - MARGIN) * copied["us"] else self.copied


CONTESTS = (
    Contest("BF16", "chunk_prefill_gated", "chunk_prefill_gated_resident"),
    Contest("FP16 (timed in BF16)", "chunk_prefill", "chunk_prefill_resident"),
)


def lines(times: list[dict[str, Any]]) -> Iterator[str]:
    """Of the findings `time` of one run."""
    widths: dict[int, dict[int, Times]] = {}
    for time in times:
        if time["op"] == "prefill" and time.get("batch") == 1:
            sizes = widths.setdefault(time.get("head_dim", WIDTH), {})
            sizes.setdefault(time["tokens"], {})[time["who"]] = time
    if widths:
        yield "\nwhat auto should take for a prefill on this card, by channels of a head (P)"
        for contest in CONTESTS:
            for width in sorted(widths, reverse=True):
                yield f"{contest.kind}, P = {width}: {_verdict(contest, widths[width])}"
        yield _goal(widths.get(WIDTH, {}).get(GOAL_TOKENS, {}))


def _verdict(contest: Contest, sizes: dict[int, Times]) -> str:
    taken = {tokens: contest.quicker(sizes[tokens]) for tokens in sorted(sizes)}
    known = {tokens: kernel for tokens, kernel in taken.items() if kernel is not None}
    if not known:
        return f"not known, {contest.copied} and {contest.resident} were not both timed"
    kernels = dict.fromkeys(known.values())
    places = {k: ", ".join(str(t) for t, kernel in known.items() if kernel == k) for k in kernels}
    named = "; ".join(f"{kernel} at {places[kernel]} tokens" for kernel in kernels)
    ratios = ", ".join(f"{_ratio(contest, sizes[tokens]):.3f} at {tokens}" for tokens in known)
    return f"{named} (resident over copied: {ratios})"


def _ratio(contest: Contest, times: Times) -> float:
    return float(times[_OURS + contest.resident]["us"] / times[_OURS + contest.copied]["us"])


def _goal(times: Times) -> str:
    ours, peers = ([t for who, t in times.items() if who.startswith(whose)] for whose in (_OURS, _PEER))
    if not ours or not peers:
        return f"{GOAL_TOKENS} tokens at {GOAL:g} x {_PEER}: not known, not timed side by side"
    best, peer = (min(found, key=lambda time: time["us"]) for found in (ours, peers))
    share = peer["us"] / best["us"]
    verdict = "met" if share >= GOAL else "not met"
    kernel = best["who"].removeprefix(_OURS)
    told = math.floor(1000 * share) / 1000  # 1.4996 is not 1.5
    found = f"{kernel} {best['us']:.1f} us is {told:.3f} x {peer['who']} {peer['us']:.1f} us"
    return f"{GOAL_TOKENS} tokens at {GOAL:g} x {_PEER}: {verdict}, {found}"
