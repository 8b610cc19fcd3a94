"""Cases for the mixer's kernels: what to compute, seeded data for it, and how far off a result is.

A case is a base row with a few changes. Padding, and all memory that a kernel must write, is NaN.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np
from mamba2_mixer import reference
from numpy.typing import NDArray

MIXER = Path(__file__).parents[1]
CONTRACT = json.loads((MIXER / "contract.json").read_text())
MIN_CHUNK_TOKENS = int(re.findall(r"kMinChunkTokens = (\d+);", (MIXER / "limits.h").read_text())[0])
DTYPES = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
DTYPE_CODES = {"float32": 0, "float16": 1, "bfloat16": 2}  # ElasticDtype in params.h
EPSILON = 1e-5


@dataclass(frozen=True)
class Case:
    """One row of the matrix.

    Attributes:
        calls: per call the lengths of all rows; T is the longest, or what `pad_to` says.
        decay: size of |dt*A|: `typical` (dt 1e-3 to 1e-1), `large` (above 1000 in a chunk of 64), `tiny` (dt 1e-5).
        fresh: states begin as zeros, else as noise.
        scale: size of x, B and C before the convolution, and of its bias.
    """

    calls: tuple[tuple[int, ...], ...] = ((65, 9),)
    heads_per_group: int = 2
    groups: int = 2
    head_dim: int = 20
    state_size: int = 128
    conv_width: int = 4
    activation: str = "float32"
    head_param: str = "float32"
    decay: Literal["typical", "large", "tiny"] = "typical"
    fresh: bool = False
    aliased: bool = True
    kernel: str = "auto"
    pad_to: int = 0
    limits: tuple[float, float] = (0.0, float("inf"))
    scale: float = 1.0
    order: str = "random"
    multiprocessors: int = 132
    seed: int = 0

    @property
    def batch(self) -> int:
        """Rows of every call."""
        return len(self.calls[0])

    @property
    def heads(self) -> int:
        """H of the op."""
        return self.heads_per_group * self.groups

    @property
    def inner(self) -> int:
        """H*P, the channels of y."""
        return self.heads * self.head_dim

    @property
    def channels(self) -> int:
        """Channels of the convolution."""
        return self.inner + 2 * self.groups * self.state_size

    def tokens(self, call: int) -> int:
        """T of that call; never 0, for an engine has no such shape."""
        return max(*self.calls[call], self.pad_to, 1)


@dataclass(frozen=True)
class Data:
    """Tensors of a case in their own dtypes; `projected` and `length` one entry a call."""

    parameters: dict[str, NDArray]
    conv_state: NDArray
    ssm_state: NDArray
    length: list[NDArray[np.int64]]
    projected: list[NDArray]


@dataclass(frozen=True)
class Result:
    """What came out: y [B, T, di] of every call and the states after the last."""

    y: list[NDArray]
    conv_state: NDArray
    ssm_state: NDArray


_DT_CENTRE = {"typical": -4.6, "large": 60.0, "tiny": -11.5}  # softplus of it: 1e-2, 60, 1e-5


def make_data(case: Case) -> Data:
    """Seeded data; the same for equal cases on every machine."""
    rng = np.random.default_rng([case.seed, case.heads, case.head_dim, case.state_size, case.conv_width])
    act, head = DTYPES[case.activation], DTYPES[case.head_param]
    normal = rng.standard_normal
    parameters = {
        "conv_weight": (0.5 * normal((case.channels, case.conv_width))).astype(act),
        "conv_bias": (case.scale * 0.1 * normal(case.channels)).astype(act),
        "A_log": np.log(rng.uniform(1, 16, case.heads)).astype(head),
        "D": normal(case.heads).astype(head),
        "dt_bias": (_DT_CENTRE[case.decay] + normal(case.heads)).astype(head),
        "norm_weight": (1 + 0.1 * normal(case.inner)).astype(act),
    }
    noise = 0.0 if case.fresh else 1.0
    conv_state = (case.scale * noise * normal((case.batch, case.conv_width - 1, case.channels))).astype(act)
    ssm_state = (noise * normal((case.batch, case.heads, case.head_dim, case.state_size))).astype(np.float32)
    projected, length = [], []
    for i, lengths in enumerate(case.calls):
        drawn = normal((case.batch, case.tokens(i), case.inner + case.channels + case.heads))
        drawn[..., case.inner : -case.heads] *= case.scale
        tokens = drawn.astype(act)
        for row, real in enumerate(lengths):
            tokens[row, real:] = np.nan
        projected.append(tokens)
        length.append(np.array(lengths, np.int64))
    return Data(parameters, conv_state, ssm_state, length, projected)


def expected(case: Case, data: Data) -> Result:
    """The case in float64, from the same rounded inputs."""
    parameters = reference.Parameters(
        **{name: value.astype(np.float64) for name, value in data.parameters.items()},
        n_groups=case.groups,
        head_dim=case.head_dim,
        state_size=case.state_size,
        epsilon=float(np.float32(EPSILON)),
        time_step_min=case.limits[0],
        time_step_max=case.limits[1],
    )
    state = reference.State(data.conv_state.astype(np.float64), data.ssm_state.astype(np.float64))
    y = []
    for projected, length in zip(data.projected, data.length, strict=True):
        out, state = reference.mixer(parameters, state, projected.astype(np.float64), length)
        y.append(out)
    return Result(y, state.conv, state.ssm)


def relative_rms(actual: NDArray, wanted: NDArray, axes: tuple[int, ...]) -> NDArray:
    """||actual - wanted|| / ||wanted|| over `axes`; infinite where `actual` holds a NaN."""
    error = np.sqrt(np.sum((actual - wanted) ** 2, axis=axes))
    size = np.sqrt(np.sum(wanted**2, axis=axes))
    return np.where(np.isnan(error), np.inf, error / np.maximum(size, 1e-300))


def errors(case: Case, data: Data, result: Result) -> dict[str, float]:
    """The worst head's error by output, as the contract measures it; `conv_state_out` and `kept` count wrong bits.

    `kept`: rows with length 0 in every call, whose SSM state must be the old one bit for bit.
    """
    wanted = expected(case, data)
    worst: dict[str, float] = {"y": 0.0}
    pairs = zip(result.y, wanted.y, data.length, strict=True)
    real = [(a[i, :n], w[i, :n]) for a, w, length in pairs for i, n in enumerate(length) if n > 0]
    if real:
        shape = (-1, case.heads, case.head_dim)
        actual, target = (np.concatenate([pair[k].astype(np.float64) for pair in real]).reshape(shape) for k in (0, 1))
        worst["y"] = float(relative_rms(actual, target, (0, 2)).max())
    ssm = result.ssm_state.astype(np.float64)
    worst["ssm_state_out"] = float(relative_rms(ssm, wanted.ssm_state, (0, 2, 3)).max())
    conv = wanted.conv_state.astype(result.conv_state.dtype)
    worst["conv_state_out"] = float(np.sum(conv.view(np.uint8) != result.conv_state.view(np.uint8)))
    idle = np.sum(data.length, axis=0) == 0
    kept = result.ssm_state[idle].view(np.uint32) != data.ssm_state[idle].view(np.uint32)
    worst["kept"] = float(np.sum(kept))
    return worst


def on_tensor_cores(case: Case) -> bool:
    """Whether chunk_prefill may run one of the calls."""
    chosen = case.activation != "float32" and max(map(case.tokens, range(len(case.calls)))) >= MIN_CHUNK_TOKENS
    return case.kernel.startswith("chunk_prefill") or (case.kernel == "auto" and chosen)


def tolerances(case: Case) -> dict[str, float]:
    """The bounds of `errors`: from the contract, and none for what is only copied."""
    by_type = CONTRACT["tolerance"]["chunk_prefill"] if on_tensor_cores(case) else CONTRACT["tolerance"]
    bounds = by_type[case.activation]
    return {"y": bounds["y"], "ssm_state_out": bounds["ssm_state_out"], "conv_state_out": 0.0, "kept": 0.0}


def matrix() -> dict[str, Case]:
    """All cases: a base row for prefill and one for decode, one or two changes a row."""
    prefill, decode = Case(), Case(calls=((1, 1, 0),))
    rows: dict[str, Case] = {}

    def both(name: str, **changes: object) -> None:
        rows[f"prefill {name}"] = replace(prefill, **changes)  # type: ignore[arg-type]
        rows[f"decode {name}"] = replace(decode, **changes)  # type: ignore[arg-type]

    both("base")
    for head_dim in (1, 20, 30, 40, 48, 56, 64, 72, 80, 128, 256):
        both(f"P={head_dim}", head_dim=head_dim)
    for heads in (1, 2, 3, 8, 12, 16):
        both(f"heads per group={heads}", heads_per_group=heads)
    for groups in (1, 3, 8):
        both(f"G={groups}", groups=groups, heads_per_group=3)
    for state in (1, 16, 30, 64, 127, 130, 256):
        both(f"N={state}", state_size=state)
    for width in (2, 3, 5, 8):
        both(f"K={width}", conv_width=width)
    for activation in ("float16", "bfloat16"):
        both(activation, activation=activation)
        both(f"{activation} head parameters", activation=activation, head_param=activation)
        both(f"{activation} scalar", activation=activation, head_dim=30, state_size=30)
    for decay in ("large", "tiny"):
        both(f"{decay} decay", decay=decay)
        both(f"{decay} decay, N=256", decay=decay, state_size=256)
    both("time step limits", limits=(0.01, 0.02))
    both("fresh state", fresh=True)
    both("separate states", aliased=False)
    for order in ("forward", "reversed"):
        both(f"{order} order", order=order)
    both("large blocks", multiprocessors=1, head_dim=80, heads_per_group=8)
    both("large blocks, P=256", multiprocessors=1, head_dim=256)
    rows["decode by scan"] = replace(decode, kernel="scan_prefill")
    for head_dim in (20, 40, 48, 56, 64, 72, 80, 128):
        for heads in (1, 3, 8, 12, 16):
            wide = replace(prefill, groups=1, head_dim=head_dim, heads_per_group=heads)
            rows[f"P={head_dim}, heads={heads}"] = replace(wide, calls=((5,), (1,)))
    for length in (0, 1, 2, 3, 63, 64, 65, 200):
        rows[f"length={length}"] = replace(prefill, calls=((length,),))
        rows[f"length={length} of 201"] = replace(prefill, calls=((length,),), pad_to=201)
    rows["ragged"] = replace(prefill, calls=((0, 1, 2, 3, 63, 64, 65, 200),), aliased=False)
    chain = ((65, 0, 3), (1, 1, 0), (2, 64, 1), (1, 0, 1), (0, 5, 17), (1, 1, 1))
    for aliased in (True, False):
        rows[f"continuations, aliased={aliased}"] = replace(prefill, calls=chain, aliased=aliased)
    rows["continuations, 12B head"] = replace(prefill, calls=chain, head_dim=80, activation="bfloat16")
    return rows | chunk_rows()


def chunk_rows() -> dict[str, Case]:
    """Those of chunk_prefill: by name with float32 activations, which hide nothing, and as `auto` takes it."""
    base = Case(kernel="chunk_prefill")
    rows = {"base": base}
    for tokens in (1, 47, 48, 63, 64, 65, 127, 128, 129):
        rows[f"T={tokens}"] = replace(base, calls=((tokens,),), groups=1, heads_per_group=4)
    for activation in ("float16", "bfloat16"):
        narrow = replace(base, activation=activation, head_dim=80, kernel="auto")
        rows[activation] = narrow
        rows[f"{activation} head parameters"] = replace(narrow, head_param=activation)
        for tokens in (47, 48, 129):
            rows[f"{activation}, T={tokens}"] = replace(narrow, calls=((tokens,),), heads_per_group=4, groups=1)
    for head_dim in (8, 12, 40, 48, 56, 64, 72, 80, 100, 128):
        rows[f"P={head_dim}"] = replace(base, head_dim=head_dim)
    for state in (8, 16, 60, 100):
        rows[f"N={state}"] = replace(base, state_size=state)
    for groups, heads in ((1, 12), (4, 3), (8, 1)):
        rows[f"G={groups}, heads per group={heads}"] = replace(
            base, groups=groups, heads_per_group=heads, calls=((66,),)
        )
    rows["tiny decay"] = replace(base, decay="tiny")
    rows["large decay"] = replace(base, decay="large", seed=3)  # of others see test_mixer_matrix.py
    for scale in (1e5, 1e-5):
        rows[f"scale={scale}"] = replace(base, scale=scale)
    rows["time step limits"] = replace(base, limits=(0.01, 0.02))
    rows["fresh state"] = replace(base, fresh=True)
    rows["separate states"] = replace(base, aliased=False)
    for order in ("forward", "reversed"):
        rows[f"{order} order"] = replace(base, order=order)
    for length in (0, 1, 63, 64, 65, 200):
        rows[f"length={length} of 201"] = replace(base, calls=((length,),), pad_to=201)
    rows["ragged"] = replace(base, calls=((0, 3, 64, 129),), aliased=False)
    chain = ((65, 0, 3), (1, 1, 0), (2, 64, 1), (0, 5, 17))
    for aliased in (True, False):
        rows[f"continuations, aliased={aliased}"] = replace(base, calls=chain, aliased=aliased)
    wide = replace(base, activation="bfloat16", head_dim=40, heads_per_group=4, calls=((65, 17),))
    rows["eight channels a lane"] = wide
    rows["eight channels a lane, scale=1e5"] = replace(wide, scale=1e5)
    rows["eight channels a lane, float16"] = replace(wide, activation="float16")
    rows["eight channels a lane, an odd number of segments"] = replace(wide, groups=1, heads_per_group=8, head_dim=104)
    rows["eight channels a lane, three heads a warp"] = replace(wide, head_dim=80)
    gated = replace(base, kernel="chunk_prefill_gated", activation="bfloat16")
    for head_dim in (20, 64, 80, 100):
        rows[f"gated, P={head_dim}"] = replace(gated, head_dim=head_dim)
    rows["gated, long groups"] = replace(
        gated, calls=((65, 3),), head_dim=128, heads_per_group=16, groups=1, state_size=16
    )
    rows["gated, 65 of 201"] = replace(gated, calls=((65, 0),), pad_to=201)
    rows["gated, scale=1e5"] = replace(gated, scale=1e5)
    return {f"chunks {name}": case for name, case in (rows | resident_rows()).items()}


def resident_rows() -> dict[str, Case]:
    """Of chunk_prefill with a state in registers alone: what depends on who has which tokens and channels."""
    base = Case(kernel="chunk_prefill_resident", head_dim=80)
    rows = {f"P={head_dim}": replace(base, head_dim=head_dim) for head_dim in (12, 48, 56, 64, 80, 100)}
    for tokens in (1, 63, 64, 65, 129, 320):
        rows[f"T={tokens}"] = replace(base, calls=((tokens,),), groups=1, heads_per_group=4)
    for state in (8, 60, 100, 128):
        rows[f"N={state}"] = replace(base, state_size=state, head_dim=40)
    for scale in (1e5, 1e-5):
        rows[f"scale={scale}"] = replace(base, scale=scale)
    for length in (0, 1, 64, 65):
        rows[f"length={length} of 201"] = replace(base, calls=((length,),), pad_to=201)
    rows["ragged"] = replace(base, calls=((0, 3, 64, 129),), aliased=False, head_dim=64)
    rows["continuations"] = replace(base, calls=((65, 0, 3), (2, 64, 1), (0, 5, 17)))
    rows["tiny decay"] = replace(base, decay="tiny")
    for order in ("forward", "reversed"):
        rows[f"{order} order"] = replace(base, order=order)
    rows["float16"] = replace(base, activation="float16")
    gated = replace(base, kernel="chunk_prefill_gated_resident", activation="bfloat16")
    rows["gated"] = replace(gated, heads_per_group=4)
    rows["gated, P=56"] = replace(gated, heads_per_group=4, head_dim=56)
    rows["gated, P=100, 65 of 201"] = replace(gated, head_dim=100, calls=((65, 0),), pad_to=201)
    rows["gated, scale=1e5"] = replace(gated, scale=1e5)
    # The shortest rows of `projected`, and the widest block for its head: what is loaded past it lies nowhere else.
    rows["gated, smallest"] = replace(gated, calls=((65,),), head_dim=8, state_size=8, groups=1, heads_per_group=4)
    return {f"resident, {name}": case for name, case in rows.items()}


def long_cases() -> dict[str, Case]:
    """Prompts of 65,536 tokens, for a card: the host shim would take minutes.

    A state that hardly decays is added to for as long as the prompt is, and a card's tensor cores cut sums off where
    the shim's round them: what that adds up to shows here.
    """
    tiny = Case(calls=((65536,),), groups=1, heads_per_group=4, head_dim=16, state_size=16, decay="tiny")
    kernels = ("chunk_prefill", "chunk_prefill_resident")
    return {f"{kernel} tiny decay, 65536 tokens": replace(tiny, kernel=kernel) for kernel in kernels}
