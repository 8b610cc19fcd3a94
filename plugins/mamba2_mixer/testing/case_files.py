"""The file of a case that case_runner reads, and the file of results that it writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mamba2_mixer.library import KERNELS
from mamba2_mixer.testing.cases import DTYPE_CODES, DTYPES, EPSILON, Case, Data, Result
from numpy.typing import NDArray

ORDERS = {"forward": 0, "reversed": 1, "random": 2}  # shim::Order


def write_case(case: Case, data: Data, path: Path) -> None:
    """The file that case_runner reads: header lines, an empty line, raw tensors."""
    header = {
        "batch": case.batch,
        "heads": case.heads,
        "head_dim": case.head_dim,
        "groups": case.groups,
        "state_size": case.state_size,
        "conv_width": case.conv_width,
        "activation": DTYPE_CODES[case.activation],
        "head_param": DTYPE_CODES[case.head_param],
        "epsilon": EPSILON,
        "time_step_min": case.limits[0],
        "time_step_max": case.limits[1],
        "aliased": int(case.aliased),
        "kernel": KERNELS[case.kernel],
        "multiprocessors": case.multiprocessors,
        "order": ORDERS[case.order],
        "seed": case.seed,
        "calls": " ".join(str(case.tokens(i)) for i in range(len(case.calls))),
    }
    with path.open("wb") as file:
        file.write("".join(f"{key} {value}\n" for key, value in header.items()).encode() + b"\n")
        for tensor in (*data.parameters.values(), data.conv_state, data.ssm_state):
            file.write(tensor.tobytes())
        for length, projected in zip(data.length, data.projected, strict=True):
            file.write(length.tobytes() + projected.tobytes())


def read_result(case: Case, path: Path) -> Result:
    """What case_runner wrote."""
    raw, offset = path.read_bytes(), 0

    def take(dtype: np.dtype, *shape: int) -> NDArray:
        nonlocal offset
        count = int(np.prod(shape))
        array = np.frombuffer(raw, dtype, count, offset).reshape(shape)
        offset += array.nbytes
        return array

    act = DTYPES[case.activation]
    y = [take(act, case.batch, case.tokens(i), case.inner) for i in range(len(case.calls))]
    conv_state = take(act, case.batch, case.conv_width - 1, case.channels)
    ssm_state = take(np.dtype(np.float32), case.batch, case.heads, case.head_dim, case.state_size)
    if offset != len(raw):
        raise ValueError(f"{path}: expected {offset} bytes, found {len(raw)}")
    return Result(y, conv_state, ssm_state)
