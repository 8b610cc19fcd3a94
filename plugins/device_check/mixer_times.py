"""Decode and prefill of one mixer layer, ours beside public kernels: float64 first, then times in turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mamba2_mixer.library import KERNELS, MixerError, MixerLibrary

from device_check.mixer_set import LAYER_12B, MixerSet, Size, bounds, errors, expected
from device_check.place import Place
from device_check.timing import Work, compete, make_clock

#: Sets of buffers: so many that they are twice the cache, three at least, a whole model's layers at most.
LEAST_SETS, MOST_SETS = 3, 28
#: What precedes the kernel's name.
OURS = "elastic "
#: A peer beyond this computes something else.
PEER_BOUND = 2e-2

#: Seconds a size takes at most, by (batch, tokens).
SIZES = {
    "decode": {(batch, 1): 10.0 for batch in (1, 2, 4, 8, 16, 64)},
    "prefill": {(1, 256): 12.0, (1, 1024): 15.0, (1, 2048): 15.0, (1, 8192): 25.0},
}
#: What runs of a size on the host shim, to prove this module.
STAND_IN = {"heads": 4, "head_dim": 8, "groups": 2, "state_size": 16, "conv_width": 4, "activation": "float32"}
STAND_IN_SIZES = {"decode": {(1, 1): 1.0, (3, 1): 1.0}, "prefill": {(1, 20): 1.0}}

#: By entrant, a work for each set.
Entrants = dict[str, list[Work]]


def run(place: Place) -> None:
    """Option `op`: `decode` or `prefill`."""
    op = place.options["op"]
    layer, sizes = (LAYER_12B, SIZES[op]) if place.device == "cuda" else (STAND_IN, STAND_IN_SIZES[op])
    named = {f"{op} batch {batch}, {tokens} tokens": (batch, tokens) for batch, tokens in sizes}
    with torch.no_grad():
        bench = MixerBench(place)
        for name in place.in_time([(name, sizes[size]) for name, size in named.items()]):
            bench.measure(op, name, Size(*named[name], **layer))


class MixerBench:
    """What all sizes share."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.library = MixerLibrary(place.programs / "libelastic_plugins.so")
        self.clock = make_clock(place.device)
        self.peers = self._find_peers()

    def _find_peers(self) -> Any:
        if self.place.peers is None or self.place.device != "cuda":
            self.place.emit("skipped", what="peers", why="no folder of prepare_peers.py, or no card")
            return None
        try:
            from device_check.mixer_peers import Peers  # noqa: PLC0415 (needs Triton)

            return Peers(self.place.peers)
        except Exception as error:  # whatever a peer's import runs into, ours is measured
            self.place.emit("skipped", what="peers", why=f"{type(error).__name__}: {error}")
            return None

    def measure(self, op: str, name: str, size: Size) -> None:
        """Checks all entrants on one set, then times those that are right on all of them."""
        sets = [MixerSet(size, self.place.device, seed, self.library) for seed in range(self._count(size))]
        entrants = self._check(op, name, sets)
        replays = {}
        for who, works in entrants.items():
            try:
                replays[who] = self.clock.capture(works)
            except Exception as error:
                self.place.emit("skipped", what=f"{name}, {who}", why=f"{type(error).__name__}: {error}")
        for who, found in compete(self.clock, replays).items():
            us = {key: round(1e3 * found[key] / len(sets), 3) for key in ("median", "p10", "p90")}
            self.place.emit(
                "time",
                op=op,
                what=name,
                batch=size.batch,
                tokens=size.tokens,
                who=who,
                us=us["median"],
                p10=us["p10"],
                p90=us["p90"],
                bytes=size.least_bytes(),
                sets=len(sets),
                samples=found["samples"],
            )
        del entrants, replays, sets
        self.clock.empty()

    def _count(self, size: Size) -> int:
        if self.place.device != "cuda":
            return LEAST_SETS
        cache = torch.cuda.get_device_properties(0).L2_cache_size
        return max(LEAST_SETS, min(MOST_SETS, -(-int(2.5 * cache) // size.least_bytes())))

    def _check(self, op: str, name: str, sets: list[MixerSet]) -> Entrants:
        """Those that agree with float64; states are as they were afterwards, but for the sets' own later use."""
        first, right = sets[0], {}
        wanted = expected(first)
        kept = first.conv_state.clone(), first.ssm_state.clone()
        for who, make, peer in self._all(op, first):
            first.conv_state.copy_(kept[0])
            first.ssm_state.copy_(kept[1])
            first.poison()
            try:
                y, ssm = make(first)()
                found = errors(first, y, ssm, wanted)
            except MixerError as refusal:
                self.place.emit("note", what=f"{name}, {who}", why=str(refusal))
                continue
            except Exception as error:
                self._say(f"{name}, {who}", {}, f"{type(error).__name__}: {error}", peer)
                continue
            limits = dict.fromkeys(found, PEER_BOUND) if peer else bounds(first.size, who.removeprefix(OURS))
            wrong = _beyond(found, limits)
            self._say(f"{name}, {who}", found, wrong, peer)
            if not wrong:
                right[who] = [make(s) for s in sets]
        first.conv_state.copy_(kept[0])
        first.ssm_state.copy_(kept[1])
        return right

    def _say(self, what: str, found: Mapping[str, float], wrong: str, peer: bool) -> None:
        extra = {"peer": True} if peer else {}
        self.place.emit("check", what=what, errors=dict(found), wrong=wrong, **extra)

    def _all(self, op: str, first: MixerSet) -> list[tuple[str, Any, bool]]:
        """(name, maker of a work from a set, whether a peer); all kernels of the op that one may ask for."""
        kernels = [name for name in KERNELS if name != "auto" and name.startswith("decode") == (op == "decode")]
        ours = [(OURS + name, lambda s, name=name: self._ours(s, name), False) for name in kernels]
        if self.peers is None:
            return ours
        self.peers.forget()
        names = (self.peers.decode if op == "decode" else self.peers.prefill)(first)
        theirs = [(who, lambda s, who=who: getattr(self.peers, op)(s)[who], True) for who in names]
        return ours + theirs

    def _ours(self, s: MixerSet, kernel: str) -> Work:
        args = s.args()

        def work() -> Any:
            stream = torch.cuda.current_stream().cuda_stream if self.place.device == "cuda" else 0
            self.library.enqueue(args, kernel, stream)
            return s.y, s.ssm_state

        return work


def _beyond(found: Mapping[str, float], limits: Mapping[str, float]) -> str:
    return ", ".join(f"{n} {e:g} above {limits[n]:g}" for n, e in found.items() if not e <= limits[n])
