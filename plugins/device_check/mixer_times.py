"""Decode and prefill of one mixer layer, ours beside public kernels: float64 first, then times in turns."""

from __future__ import annotations

from typing import Any

import torch
from mamba2_mixer.library import KERNELS, MixerError, MixerLibrary

from device_check.bench import OURS, Bench, Entrant, RefusalError, count_sets
from device_check.mixer_set import LAYER_12B, MixerSet, Size, bounds, errors, expected
from device_check.place import Place
from device_check.timing import Work

#: A whole model's layers.
MOST_SETS = 28
#: A peer beyond this computes something else.
PEER_LIMITS = {"y": 2e-2, "ssm_state_out": 2e-2}

#: What a row of the table includes.
LEGEND = {
    "elastic": "the whole op: convolution and its state, dt, scan and its state, gate, grouped norm",
    "mamba_ssm": "causal-conv1d (CUDA), mamba_ssm's Triton scan or state update, its Triton gated norm: as much",
    "flashinfer": "causal-conv1d (CUDA), FlashInfer's state update, mamba_ssm's Triton gated norm: as much",
}

#: Seconds a size takes at most, by (batch, tokens, P). Of the 12B's heads first; of others, for whose blocks `auto` may
#: take another kernel (choice.py), ours alone: peers are compiled, and tuned for minutes, for the 12B's.
SIZES = {
    "decode": {(batch, 1, 80): 10.0 for batch in (1, 2, 4, 8, 16, 64)},
    "prefill": {
        **{(1, 256, 80): 12.0, (1, 1024, 80): 15.0, (1, 2048, 80): 15.0, (1, 8192, 80): 25.0},
        **{(1, tokens, width): seconds for width in (64, 48) for tokens, seconds in ((1024, 6.0), (8192, 12.0))},
    },
}
Layer = dict[str, Any]
#: What runs of them on the host shim, to prove this module.
STAND_IN = {"heads": 4, "head_dim": 8, "groups": 2, "state_size": 16, "conv_width": 4, "activation": "float32"}
#: Whose kernels are traced one by one.
TRACED = ((1, 1, 80), (64, 1, 80), (1, 8192, 80))
STAND_IN_SIZES = {"decode": {(1, 1, 8): 1.0, (3, 1, 8): 1.0}, "prefill": {(1, 20, 8): 1.0, (1, 20, 12): 1.0}}


def run(place: Place) -> None:
    """Option `op`: `decode` or `prefill`."""
    op = place.options["op"]
    layer, sizes = (LAYER_12B, SIZES[op]) if place.device == "cuda" else (STAND_IN, STAND_IN_SIZES[op])
    named = {_name(op, layer, *size): size for size in sizes}
    library = MixerLibrary(place.programs / "libelastic_plugins.so")
    bench = Bench(place)
    for who, text in LEGEND.items():
        place.emit("legend", op=op, who=who, text=text)
    with torch.no_grad():
        peers = bench.peers(lambda: _find_peers(place))
        for name in place.in_time([(name, sizes[size]) for name, size in named.items()]):
            size = _size(layer, *named[name])
            known = peers if size.head_dim == layer["head_dim"] else None
            bench.measure(_Layer(op, name, size, library, place.device, known))
            bench.clock.empty()
        if place.device == "cuda":
            traced = [(name, 5.0) for name, size in named.items() if size in TRACED]
            for name in place.in_time(traced):
                bench.trace(_Layer(op, name, _size(layer, *named[name]), library, place.device, peers))
                bench.clock.empty()


def _size(layer: Layer, batch: int, tokens: int, head_dim: int) -> Size:
    return Size(batch, tokens, **{**layer, "head_dim": head_dim})


def _name(op: str, layer: Layer, batch: int, tokens: int, head_dim: int) -> str:
    other = f", P = {head_dim}" if head_dim != layer["head_dim"] else ""
    return f"{op} batch {batch}, {tokens} tokens{other}"


def _find_peers(place: Place) -> Any:
    if place.peers is None:
        raise FileNotFoundError("no folder of prepare_peers.py")
    from device_check.mixer_peers import Peers  # noqa: PLC0415 (needs Triton)

    return Peers(place.peers)


class _Layer:
    """A Problem: a call of one layer."""

    def __init__(self, op: str, name: str, size: Size, library: MixerLibrary, device: str, peers: Any) -> None:
        self.op, self.name, self.size, self.library, self.peers = op, name, size, library, peers
        count = count_sets(device, size.least_bytes(), MOST_SETS)
        self.sets = [MixerSet(size, device, seed, library) for seed in range(count)]
        self.facts = {n: getattr(size, n) for n in ("batch", "tokens", "head_dim")} | {"bytes": size.least_bytes()}
        first = self.sets[0]
        self.kept = first.conv_state.clone(), first.ssm_state.clone()
        self.wanted: Any = None

    def expect(self) -> None:
        """y and the SSM state in float64."""
        self.wanted = expected(self.sets[0])

    def entrants(self) -> list[Entrant[MixerSet]]:
        """Every kernel of the library that one may ask for, of this op; peers."""
        kernels = [name for name in KERNELS if name != "auto" and name.startswith("decode") == (self.op == "decode")]
        ours = [Entrant(OURS + k, lambda s, k=k: self._ours(s, k), bounds(self.size, k)) for k in kernels]  # type: ignore[misc]
        if self.peers is None:
            return ours
        self.peers.forget()
        of = getattr(self.peers, self.op)
        names = of(self.sets[0])
        return ours + [Entrant(who, lambda s, who=who: of(s)[who], PEER_LIMITS, peer=True) for who in names]  # type: ignore[misc]

    def reset(self) -> None:
        """The states as they were; NaN in the outputs."""
        first = self.sets[0]
        first.conv_state.copy_(self.kept[0])
        first.ssm_state.copy_(self.kept[1])
        first.poison()

    def errors(self, result: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
        """Of y and the SSM state."""
        return errors(self.sets[0], *result, self.wanted)

    def _ours(self, s: MixerSet, kernel: str) -> Work:
        args = s.args()

        def work() -> Any:
            stream = torch.cuda.current_stream().cuda_stream if s.y.is_cuda else 0
            try:
                self.library.enqueue(args, kernel, stream)
            except MixerError as refusal:
                raise RefusalError(str(refusal)) from refusal
            return s.y, s.ssm_state

        return work
