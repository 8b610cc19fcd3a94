"""Attention of one layer over its caches, ours beside FlashInfer's and PyTorch's: float64 first, then times in turns.

Ours writes the call's rows into the caches first; the peers find them there, which costs them nothing.
"""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_void_p
from typing import Any

import numpy as np
import torch
from cached_attention import reference
from cached_attention.library import KERNELS, Args, AttentionError, AttentionLibrary, Shape
from cached_attention.testing.cases import Case, relative_rms, tolerances
from torch.nn.attention.bias import causal_lower_right

from device_check.bench import OURS, Bench, Entrant, RefusalError, count_sets
from device_check.place import Place
from device_check.timing import Work

#: Query heads, key and value heads, head size of Nemotron-Nano-12B-v2.
HEADS_12B = (40, 8, 128)
#: Sets of a short context are small.
MOST_SETS = 32
PEER_LIMITS = {"y": 2e-2, "caches": 0.0}
#: Bytes of room for FlashInfer's splits.
_SCRATCH = 1 << 26
#: Tokens of a call that are compared with float64, and rows of the batch.
_TOKENS, _ROWS = 3, 2

#: What a row of the table includes.
LEGEND = {
    "elastic": "the whole op: the call's rows written into the caches, scores, softmax, sums, splits merged",
    "torch": "scaled_dot_product_attention on caches that hold the call's rows",
    "flashinfer": "its single prefill (tensor cores, splits) on caches that hold the call's rows",
}

#: Seconds a size takes at most, by (batch, tokens, rows before the call).
SIZES = {
    "attention decode": {
        **{(1, 1, before): 8.0 for before in (1023, 8191, 32767, 131070)},
        **{(8, 1, 8191): 8.0, (64, 1, 1023): 8.0},
    },
    "attention prefill": {
        **{(1, 1024, 0): 8.0, (1, 256, 7936): 8.0, (1, 1024, 7168): 8.0, (1, 8192, 0): 10.0, (1, 1024, 31744): 10.0},
        **{(1, 1024, 130047): 15.0},
    },
}
#: Whose kernels are traced one by one.
TRACED = ((1, 1, 8191), (1, 1024, 7168))
#: What runs of them on the host shim, to prove this module.
STAND_IN_HEADS = (4, 2, 16)
STAND_IN_SIZES = {"attention decode": {(2, 1, 9): 1.0}, "attention prefill": {(1, 5, 3): 1.0}}


def run(place: Place) -> None:
    """Option `op`: `attention decode` or `attention prefill`."""
    op = place.options["op"]
    heads, sizes = (HEADS_12B, SIZES[op]) if place.device == "cuda" else (STAND_IN_HEADS, STAND_IN_SIZES[op])
    named = {f"{op} batch {b}, {t} tokens after {before}": (b, t, before) for b, t, before in sizes}
    library = AttentionLibrary(place.programs / "libelastic_plugins.so")
    bench = Bench(place)
    for who, text in LEGEND.items():
        place.emit("legend", op=op, who=who, text=text)
    with torch.no_grad():
        flashinfer = bench.peers(lambda: _open_flashinfer(place))
        for name in place.in_time([(name, sizes[size]) for name, size in named.items()]):
            bench.measure(_Layer(op, name, (*named[name], *heads), library, place.device, flashinfer))
            bench.clock.empty()
        if place.device == "cuda":
            for name in place.in_time([(name, 4.0) for name, size in named.items() if size in TRACED]):
                bench.trace(_Layer(op, name, (*named[name], *heads), library, place.device, flashinfer))
                bench.clock.empty()


def _open_flashinfer(place: Place) -> Any:
    if place.peers is None:
        raise FileNotFoundError("no folder of prepare_peers.py")
    library = ctypes.CDLL(str(place.peers / "libpeer_flashinfer_attention.so"))
    library.peer_flashinfer_attention.argtypes = [c_void_p] * 5 + [c_int] * 5 + [c_float, c_void_p]
    return library.peer_flashinfer_attention


class AttentionSet:
    """Random tensors of one call; the caches hold NaN beyond the rows that a call may read."""

    def __init__(self, shape: Shape, before: int, device: str, seed: int, library: AttentionLibrary) -> None:
        self.shape, self.before, self.rows = shape, before, before + shape.tokens
        # float16 on the host shim, whose bfloat16 this module need not wait for
        kind = torch.bfloat16 if device == "cuda" else torch.float16
        random = torch.Generator(device).manual_seed(seed)

        def normal(*sizes: int) -> torch.Tensor:
            return torch.randn(*sizes, generator=random, device=device, dtype=torch.float32).to(kind)

        batch, tokens, groups, head_dim = shape.batch, shape.tokens, shape.key_value_heads, shape.head_dim
        self.query = normal(batch, tokens, shape.heads * head_dim)
        self.key, self.value = (normal(batch, tokens, groups * head_dim) for _ in range(2))
        self.caches = [normal(batch, groups, shape.context, head_dim) for _ in range(2)]
        for cache in self.caches:
            cache[:, :, before:] = float("nan")
        self.position = torch.full((batch,), before, device=device)
        needed = library.requirements(shape).workspace_bytes
        self.workspace = torch.empty(max(16, needed), device=device, dtype=torch.uint8)
        self.y = torch.empty_like(self.query)

    def append(self) -> None:
        """The call's rows, in the caches."""
        for cache, new in zip(self.caches, (self.key, self.value), strict=True):
            heads = new.view(self.shape.batch, self.shape.tokens, self.shape.key_value_heads, -1)
            cache[:, :, self.before : self.rows] = heads.transpose(1, 2)

    def args(self) -> Args:
        """The call."""
        tensors = (self.query, self.key, self.value, self.position, *self.caches, self.y, self.workspace)
        code = 2 if self.y.dtype == torch.bfloat16 else 1
        return Args(self.shape, code, self.scale, 0, 0, *(tensor.data_ptr() for tensor in tensors))

    @property
    def scale(self) -> float:
        """Of the scores."""
        return float(self.shape.head_dim**-0.5)


class _Layer:
    """A Problem: a call of one layer. size: batch, tokens, rows before, query heads, key and value heads, head size."""

    def __init__(
        self, op: str, name: str, size: tuple[int, ...], library: AttentionLibrary, device: str, flashinfer: Any
    ) -> None:
        batch, tokens, before, heads, groups, head_dim = size
        self.op, self.name, self.library, self.flashinfer = op, name, library, flashinfer
        self.device = device
        shape = Shape(batch, tokens, heads, groups, head_dim, before + tokens + 1)
        read = 2 * 2 * batch * head_dim * (groups * (before + 2 * tokens) + heads * tokens)
        seen = tokens * before + tokens * (tokens + 1) // 2
        self.facts = {
            **{"batch": batch, "tokens": tokens, "before": before, "bytes": read},
            "flops": 4 * batch * seen * heads * head_dim,
        }
        count = count_sets(device, read, MOST_SETS)
        self.sets = [AttentionSet(shape, before, device, seed, library) for seed in range(count)]
        self.sets[0].append()
        self.filled = [cache.clone() for cache in self.sets[0].caches]
        self.rows, self.tokens = _spread(batch, _ROWS), _spread(tokens, _TOKENS)
        self.chosen = [(b, t) for b in self.rows for t in self.tokens]
        self.wanted: Any = None
        self.scratch = torch.empty(_SCRATCH if flashinfer else 0, device=device, dtype=torch.uint8)

    def expect(self) -> None:
        """y [chosen, H*D] in float64."""
        self.wanted = np.concatenate([self._expected(b) for b in self.rows])

    def _expected(self, b: int) -> Any:
        """y [tokens, H*D] in float64 of the chosen tokens of one row."""
        first, row = self.sets[0], slice(b, b + 1)
        query, *caches = (t[row].double().cpu().numpy() for t in (first.query, *self.filled))
        found = [
            reference.attention(query[:, t : t + 1], *caches, np.array([first.before + t]), first.scale)
            for t in self.tokens
        ]
        return np.concatenate(found)[:, 0]

    def entrants(self) -> list[Entrant[AttentionSet]]:
        """Every kernel of ours that may be the one for the op; FlashInfer, one sequence at a time; PyTorch."""
        case = Case(dtype="bfloat16" if self.device == "cuda" else "float16")
        limits = {"y": tolerances(case)["y"], "caches": 0.0}
        names = [name for name in KERNELS if name != "auto" and not (name == "decode" and "prefill" in self.op)]
        found = [Entrant(OURS + k, lambda s, k=k: self._ours(s, k), limits) for k in names]  # type: ignore[misc]
        if self.device == "cuda":
            found.append(Entrant("torch", self._torch, PEER_LIMITS, peer=True))
        if self.flashinfer is not None and self.sets[0].shape.batch == 1:
            found.append(Entrant("flashinfer", self._flashinfer, PEER_LIMITS, peer=True))
        return found

    def reset(self) -> None:
        """NaN in y and in the call's rows of the caches; peers append them when they are made."""
        for tensor in (self.sets[0].y, *(cache[:, :, self.sets[0].before :] for cache in self.sets[0].caches)):
            tensor.fill_(float("nan"))

    def errors(self, y: torch.Tensor) -> dict[str, float]:
        """Of y at the chosen tokens, the worst head; elements of the caches that differ."""
        first, heads = self.sets[0], self.sets[0].shape.heads
        found = np.stack([y[b, t].double().cpu().numpy() for b, t in self.chosen])
        shape = (-1, heads, first.shape.head_dim)
        worst = relative_rms(found.reshape(shape), self.wanted.reshape(shape), (0, 2)).max()
        pairs = zip(first.caches, self.filled, strict=True)
        differ = sum(int((a.view(torch.int16) != b.view(torch.int16)).sum()) for a, b in pairs)
        return {"y": float(worst), "caches": float(differ)}

    def _ours(self, s: AttentionSet, kernel: str) -> Work:
        args = s.args()

        def work() -> torch.Tensor:
            stream = torch.cuda.current_stream().cuda_stream if s.y.is_cuda else 0
            try:
                self.library.enqueue(args, kernel, stream)
            except AttentionError as refusal:
                raise RefusalError(str(refusal)) from refusal
            return s.y

        return work

    def _torch(self, s: AttentionSet) -> Work:
        s.append()
        shape = s.shape
        query = s.query.view(shape.batch, shape.tokens, shape.heads, shape.head_dim).transpose(1, 2)
        keys, values = (cache[:, :, : s.rows] for cache in s.caches)
        mask = causal_lower_right(shape.tokens, s.rows) if shape.tokens > 1 else None

        def work() -> torch.Tensor:
            y = torch.nn.functional.scaled_dot_product_attention(query, keys, values, mask, enable_gqa=True)
            return y.transpose(1, 2).reshape(s.y.shape)

        return work

    def _flashinfer(self, s: AttentionSet) -> Work:
        shape = s.shape
        s.append()
        pointers = [t.data_ptr() for t in (s.query, *s.caches, s.y, self.scratch)]
        numbers = (shape.tokens, s.rows, shape.context, shape.heads, shape.key_value_heads, s.scale)

        def work() -> torch.Tensor:
            code = self.flashinfer(*pointers, *numbers, torch.cuda.current_stream().cuda_stream)
            if code != 0:
                raise RuntimeError(f"flashinfer: error {code}")
            return s.y

        return work


def _spread(count: int, most: int) -> list[int]:
    """Numbers of 0..count-1, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})
