"""Cases for the attention kernels: what to compute, seeded data for it, and the file that attention_cases reads.

A case is a base row with a few changes. Cache rows that nobody has written, and all memory that a kernel must write,
are NaN.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np
from cached_attention import reference
from cached_attention.library import KERNELS
from numpy.typing import NDArray

CONTRACT = json.loads((Path(__file__).parents[1] / "contract.json").read_text())
DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
DTYPE_CODES = {"float16": 1, "bfloat16": 2}  # ElasticDtype
ORDERS = {"forward": 0, "reversed": 1, "random": 2}  # shim::Order
#: Elements of keys whose product with a query above 1 is minus infinity in float32.
HIDING_KEYS = {"infinite": -np.inf, "overflow": float(ml_dtypes.finfo(ml_dtypes.bfloat16).min)}


@dataclass(frozen=True)
class Case:
    """One row of the matrix.

    Attributes:
        calls: tokens of each call.
        start: of each sequence, cache rows that hold earlier tokens before the first call.
        spare: rows of the caches beyond what all calls write.
        scores: `typical` (a score has variance 1), `large` (scores of thousands, whose powers no narrow type holds),
            or those of the first three quarters of the earlier rows are minus infinity: `infinite` by their keys,
            `overflow` by the product of bfloat16's greatest number with a query above 1.
        scale: of the scores; 0: 1/sqrt(head_dim).
    """

    calls: tuple[int, ...] = (17,)
    start: tuple[int, ...] = (70, 0)
    heads_per_group: int = 5
    groups: int = 2
    head_dim: int = 64
    spare: int = 3
    dtype: str = "float16"
    scores: Literal["typical", "large", "infinite", "overflow"] = "typical"
    scale: float = 0.0
    kernel: str = "auto"
    order: str = "random"
    multiprocessors: int = 16
    seed: int = 0

    @property
    def batch(self) -> int:
        """Sequences of every call."""
        return len(self.start)

    @property
    def heads(self) -> int:
        """H of the op."""
        return self.heads_per_group * self.groups

    @property
    def context(self) -> int:
        """S, rows of the caches."""
        return max(self.start) + sum(self.calls) + self.spare

    @property
    def factor(self) -> float:
        """Of the scores, as the kernels get it."""
        return float(np.float32(self.scale or self.head_dim**-0.5))

    def position(self, call: int) -> NDArray[np.int64]:
        """The op's input of that call."""
        return np.array(self.start, np.int64) + sum(self.calls[:call])


@dataclass(frozen=True)
class Data:
    """Tensors of a case in its dtype; all but the caches one entry a call."""

    key_cache: NDArray
    value_cache: NDArray
    position: list[NDArray[np.int64]]
    query: list[NDArray]
    key: list[NDArray]
    value: list[NDArray]


@dataclass(frozen=True)
class Result:
    """What came out: y [B, T, H*D] of every call and the caches after the last."""

    y: list[NDArray]
    key_cache: NDArray
    value_cache: NDArray


def make_data(case: Case) -> Data:
    """Seeded data; the same for equal cases on every machine."""
    rng = np.random.default_rng([case.seed, case.heads, case.head_dim, *case.start])
    spread = 60.0 if case.scores == "large" else 1.0

    def normal(*shape: int, size: float = 1.0) -> NDArray:
        return (size * rng.standard_normal(shape, np.float32)).astype(DTYPES[case.dtype])

    caches = [normal(case.batch, case.groups, case.context, case.head_dim, size=size) for size in (spread, 1.0)]
    for cache in caches:
        for b, rows in enumerate(case.start):
            cache[b, :, rows:] = np.nan
    width, narrow = case.heads * case.head_dim, case.groups * case.head_dim
    queries = [normal(case.batch, tokens, width, size=spread) for tokens in case.calls]
    if case.scores in HIDING_KEYS:
        for query in queries:
            query[..., :: case.head_dim] = abs(query[..., :: case.head_dim]) + 2
        for b, rows in enumerate(case.start):
            caches[0][b, :, : rows * 3 // 4, 0] = HIDING_KEYS[case.scores]
    return Data(
        *caches,
        position=[case.position(call) for call in range(len(case.calls))],
        query=queries,
        key=[normal(case.batch, tokens, narrow, size=spread) for tokens in case.calls],
        value=[normal(case.batch, tokens, narrow) for tokens in case.calls],
    )


def expected(case: Case, data: Data) -> Result:
    """y in float64, from the same rounded inputs; the caches in their own dtype, bit for bit."""
    keys, values, y = data.key_cache, data.value_cache, []
    for position, query, key, value in zip(data.position, data.query, data.key, data.value, strict=True):
        keys, values = reference.append(keys, key, position), reference.append(values, value, position)
        wide = (tensor.astype(np.float64) for tensor in (query, keys, values))
        y.append(reference.attention(*wide, position, case.factor))
    return Result(y, keys, values)


def write_case(case: Case, data: Data, path: Path) -> None:
    """The file that attention_cases reads: header lines, an empty line, raw tensors."""
    header = {
        "batch": case.batch,
        "heads": case.heads,
        "key_value_heads": case.groups,
        "head_dim": case.head_dim,
        "context": case.context,
        "dtype": DTYPE_CODES[case.dtype],
        "scale": repr(case.factor),
        "kernel": KERNELS[case.kernel],
        "multiprocessors": case.multiprocessors,
        "order": ORDERS[case.order],
        "seed": case.seed,
        "calls": " ".join(map(str, case.calls)),
    }
    with path.open("wb") as file:
        file.write("".join(f"{key} {value}\n" for key, value in header.items()).encode() + b"\n")
        for tensor in (data.key_cache, data.value_cache):
            file.write(tensor.tobytes())
        for tensors in zip(data.position, data.query, data.key, data.value, strict=True):
            for tensor in tensors:
                file.write(tensor.tobytes())


def read_result(case: Case, path: Path) -> Result:
    """What attention_cases wrote."""
    raw, offset = path.read_bytes(), 0

    def take(*shape: int) -> NDArray:
        nonlocal offset
        array = np.frombuffer(raw, DTYPES[case.dtype], int(np.prod(shape)), offset).reshape(shape)
        offset += array.nbytes
        return array

    y = [take(case.batch, tokens, case.heads * case.head_dim) for tokens in case.calls]
    caches = [take(case.batch, case.groups, case.context, case.head_dim) for _ in range(2)]
    if offset != len(raw):
        raise ValueError(f"{path}: expected {offset} bytes, found {len(raw)}")
    return Result(y, *caches)


def relative_rms(actual: NDArray, wanted: NDArray, axes: tuple[int, ...]) -> NDArray:
    """||actual - wanted|| / ||wanted|| over `axes`; infinite where `actual` holds a NaN."""
    error = np.sqrt(np.sum((actual - wanted) ** 2, axis=axes))
    size = np.sqrt(np.sum(wanted**2, axis=axes))
    return np.where(np.isnan(error), np.inf, error / np.maximum(size, 1e-300))


def head_errors(case: Case, y: list[NDArray], wanted: list[NDArray]) -> float:
    """The worst head's error over all calls, as the contract measures it."""
    shape = (-1, case.heads, case.head_dim)
    actual, target = (np.concatenate([v.astype(np.float64).reshape(shape) for v in values]) for values in (y, wanted))
    return float(relative_rms(actual, target, (0, 2)).max())


def errors(case: Case, data: Data, result: Result) -> dict[str, float]:
    """The worst head's error of y; of the caches, bytes that differ."""
    wanted = expected(case, data)
    worst = {"y": head_errors(case, result.y, wanted.y)}
    for name in ("key_cache", "value_cache"):
        actual, target = getattr(result, name), getattr(wanted, name)
        worst[name] = float(np.sum(actual.view(np.uint8) != target.view(np.uint8)))
    return worst


def tolerances(case: Case) -> dict[str, float]:
    """The bounds of `errors`: from the contract, and none for what is only copied."""
    return {"y": CONTRACT["tolerance"][case.dtype]["y"], "key_cache": 0.0, "value_cache": 0.0}


def matrix() -> dict[str, Case]:
    """All cases: a base row for prefill and one for decode, one or two changes a row."""
    prefill, decode = Case(), Case(calls=(1,), start=(200, 3))
    rows: dict[str, Case] = {}

    def both(name: str, **changes: object) -> None:
        rows[f"prefill {name}"] = replace(prefill, **changes)  # type: ignore[arg-type]
        rows[f"decode {name}"] = replace(decode, **changes)  # type: ignore[arg-type]

    both("base")
    both("bfloat16", dtype="bfloat16")
    for head_dim in (8, 24, 64, 80, 128, 136, 256):
        both(f"D={head_dim}", head_dim=head_dim, groups=1)
    both("D=128, bfloat16", head_dim=128, groups=1, dtype="bfloat16")
    for heads in (1, 4, 5, 8, 17):
        both(f"heads per group={heads}", heads_per_group=heads)
    for tokens in (1, 2, 17, 64, 65, 130):
        rows[f"T={tokens}"] = replace(prefill, calls=(tokens,), heads_per_group=2, groups=1)
        rows[f"T={tokens} by decode"] = replace(prefill, calls=(tokens,), heads_per_group=2, groups=1, kernel="decode")
    for before in (0, 1, 62, 63, 64, 65, 127, 128):
        rows[f"T=1 after {before}"] = replace(decode, start=(before,))
        rows[f"T=3 after {before}"] = replace(prefill, calls=(3,), start=(before, 9))
    for splits in (1, 2, 3, 8, 64):  # blocks of a multiprocessor: 2; of a call: 4
        both(f"multiprocessors={splits}", multiprocessors=splits)
    both("large scores", scores="large")
    both("large scores, bfloat16", scores="large", dtype="bfloat16")
    hidden = {"start": (200, 90), "scores": "infinite"}
    both("splits of scores of minus infinity", **hidden)
    both("splits of scores of minus infinity by overflow", **hidden | {"scores": "overflow", "dtype": "bfloat16"})
    both("scale", scale=0.7)
    both("no spare rows", spare=0)
    for order in ("forward", "reversed"):
        both(f"{order} order", order=order)
    rows["calls that follow each other"] = replace(prefill, calls=(5, 1, 1, 66, 2), start=(0, 61))
    rows["calls, bfloat16, D=128"] = replace(rows["calls that follow each other"], dtype="bfloat16", head_dim=128)
    return rows


#: Cases at given numbers of cache rows, the last one seen among them, beside torch's attention in the same dtype.
def long_cases() -> dict[str, Case]:
    """One token, or a few, at the end of caches of 1 to 131,071 rows."""
    one = Case(calls=(1,), groups=1, spare=1)
    rows = {f"{n} rows": replace(one, start=(n - 1,), head_dim=128) for n in (1, 63, 64, 65, 4000)}
    rows["4000 rows, T=65"] = replace(one, calls=(65,), start=(3935,), heads_per_group=1)
    rows["131071 rows"] = replace(one, start=(131070,), heads_per_group=1, head_dim=16, multiprocessors=64)
    return rows
