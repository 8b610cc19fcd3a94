"""One layer's tensors of a Mamba-2 mixer on the card, random, and what float64 says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mamba2_mixer import reference
from mamba2_mixer.library import Args, MixerLibrary, Shape
from mamba2_mixer.testing.cases import DTYPE_CODES, EPSILON, Case, relative_rms, tolerances

#: H, P, G, N, K of Nemotron-Nano-12B-v2.
LAYER_12B = {"heads": 128, "head_dim": 80, "groups": 8, "state_size": 128, "conv_width": 4}


@dataclass(frozen=True)
class Size:
    """A call of one layer."""

    batch: int
    tokens: int
    heads: int
    head_dim: int
    groups: int
    state_size: int
    conv_width: int
    activation: str = "bfloat16"

    @property
    def inner(self) -> int:
        """Channels of y."""
        return self.heads * self.head_dim

    @property
    def channels(self) -> int:
        """Channels of the convolution."""
        return self.inner + 2 * self.groups * self.state_size

    @property
    def width(self) -> int:
        """Of a row of `projected`."""
        return self.inner + self.channels + self.heads

    @property
    def element(self) -> int:
        """Bytes of an activation."""
        return 4 if self.activation == "float32" else 2

    def least_bytes(self) -> int:
        """Bytes that a call must at least move: state in and out, activations in and out, both convolution states."""
        state = 2 * 4 * self.batch * self.inner * self.state_size
        rows = self.batch * self.tokens * (self.width + self.inner)
        conv = 2 * self.batch * (self.conv_width - 1) * self.channels
        return state + self.element * (rows + conv + (self.conv_width + 1) * self.channels)

    def shape(self) -> Shape:
        """For the C interface."""
        return Shape(
            *(self.batch, self.tokens, self.heads, self.head_dim, self.groups, self.state_size, self.conv_width)
        )


class MixerSet:
    """Inputs, states and room for outputs of one call, all the library's own layouts. `[B, T, ...]` tensors."""

    def __init__(self, size: Size, device: str, seed: int, library: MixerLibrary) -> None:
        self.size = size
        random = torch.Generator(device).manual_seed(seed)
        kind = getattr(torch, size.activation)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=random, device=device)

        uniform = torch.rand(size.heads, generator=random, device=device)
        self.parameters = {
            "conv_weight": (0.5 * normal(size.channels, size.conv_width)).to(kind),
            "conv_bias": (0.1 * normal(size.channels)).to(kind),
            "A_log": torch.log(1 + 15 * uniform).to(kind),
            "D": normal(size.heads).to(kind),
            "dt_bias": (normal(size.heads) - 4.6).to(kind),  # softplus of it: about 1e-2
            "norm_weight": (1 + 0.1 * normal(size.inner)).to(kind),
        }
        self.projected = torch.empty(size.batch, size.tokens, size.width, device=device, dtype=kind)
        for row in self.projected:  # a row at a time: float32 on the way
            row.copy_(normal(size.tokens, size.width))
        self.conv_state = normal(size.batch, size.conv_width - 1, size.channels).to(kind)
        self.ssm_state = normal(size.batch, size.heads, size.head_dim, size.state_size)
        self.length = torch.full((size.batch,), size.tokens, device=device)
        needed = library.requirements(size.shape())
        self.workspace = torch.empty(needed.workspace_bytes, device=device, dtype=torch.uint8)
        self.counters = torch.zeros(max(1, needed.counters), device=device, dtype=torch.int32)
        self.conv_state_out = torch.empty_like(self.conv_state)
        self.y = torch.empty(size.batch, size.tokens, size.inner, device=device, dtype=kind)

    def poison(self) -> None:
        """NaN where the next call has to write."""
        self.y.fill_(float("nan"))
        self.conv_state_out.fill_(float("nan"))

    def args(self) -> Args:
        """The call, with `ssm_state` updated in place."""
        code = DTYPE_CODES[self.size.activation]
        names = ("conv_weight", "conv_bias", "A_log", "D", "dt_bias", "norm_weight")
        inputs = [self.projected, *(self.parameters[n] for n in names), self.length, self.conv_state, self.ssm_state]
        outputs = [self.y, self.conv_state_out, self.ssm_state, self.workspace, self.counters]
        pointers = [tensor.data_ptr() for tensor in (*inputs, *outputs)]
        return Args(self.size.shape(), code, code, EPSILON, 0.0, float("inf"), 0, *pointers)


def expected(s: MixerSet) -> tuple[Any, Any]:
    """y [B, T, di] and the SSM state of a call on `s` as it stands, in float64 and on its device."""
    p = reference.Parameters(
        **{name: _float64(value) for name, value in s.parameters.items()},
        n_groups=s.size.groups,
        head_dim=s.size.head_dim,
        state_size=s.size.state_size,
        epsilon=float(np.float32(EPSILON)),
    )
    state = reference.State(_float64(s.conv_state), _float64(s.ssm_state))
    rows = []
    for token in range(s.size.tokens):
        y, state = reference.step(p, state, _float64(s.projected[:, token]))
        rows.append(y)
    return np.stack(rows, axis=1), state.ssm


def _float64(tensor: torch.Tensor) -> Any:
    """A numpy array, or CuPy's on a card: numpy's functions, and so the reference, take both."""
    wide = tensor.double()
    if not wide.is_cuda:
        return wide.numpy()
    import cupy  # noqa: PLC0415 (where there is a card)

    return cupy.from_dlpack(wide.contiguous())


def errors(s: MixerSet, y: torch.Tensor, ssm: torch.Tensor, wanted: tuple[Any, Any]) -> dict[str, float]:
    """The worst head's relative RMS, as the contract measures it."""
    heads, head_dim = s.size.heads, s.size.head_dim
    shape = (s.size.batch, s.size.tokens, heads, head_dim)
    of_y = relative_rms(_float64(y).reshape(shape), wanted[0].reshape(shape), (0, 1, 3))
    of_state = relative_rms(_float64(ssm), wanted[1], (0, 2, 3))
    return {"y": float(of_y.max()), "ssm_state_out": float(of_state.max())}


def bounds(size: Size, kernel: str) -> dict[str, float]:
    """Of ours, from the contract."""
    found = tolerances(Case(activation=size.activation, kernel=kernel))
    return {name: found[name] for name in ("y", "ssm_state_out")}
