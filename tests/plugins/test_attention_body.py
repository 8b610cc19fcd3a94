"""The kernels on the host shim and the function body in onnxruntime: two who were told the same do the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from cached_attention.testing.cases import Case, Data, Result, head_errors, matrix, tolerances
from numpy.typing import NDArray

from attention_model import Attention, attention_model

AttentionRun = Callable[[Case], tuple[Data, Result]]
#: Sanitized fibers are slow: every kind of case, not every row.
MATRIX = {
    name: case
    for name, case in matrix().items()
    if not name.startswith(("T=", "prefill multi", "decode multi", "prefill heads", "decode heads"))
    or name in ("T=1 after 0", "T=3 after 64", "T=65", "T=17 by decode", "prefill heads per group=17")
}
#: In rows that nobody has written: the kernels are given NaN there, the body a number that would show.
POISON = 1e4


def body_session(case: Case, *, fused: bool) -> onnxruntime.InferenceSession:
    """One layer of the op in float32, as an emitted file has it, with the scale of the case."""
    model = attention_model(Attention(case.heads, case.groups, case.head_dim, "float", fused))
    (node,) = model.graph.node
    next(a for a in node.attribute if a.name == "scale").f = case.factor
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_body(case: Case, data: Data, *, fused: bool) -> tuple[list[NDArray], list[NDArray]]:
    """y of every call, and both caches after the last."""
    session = body_session(case, fused=fused)
    caches = [np.nan_to_num(cache.astype(np.float32), nan=POISON) for cache in (data.key_cache, data.value_cache)]
    y = []
    for position, *tensors in zip(data.position, data.query, data.key, data.value, strict=True):
        given = dict(zip(("query.0", "key.0", "value.0"), (t.astype(np.float32) for t in tensors), strict=True))
        given |= {"position": position, "key_cache.0": caches[0], "value_cache.0": caches[1]}
        out, *caches = session.run(None, given)
        y.append(out)
    return y, caches


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "explicit"])
@pytest.mark.parametrize("name", MATRIX)
def test_body_and_kernels_agree(name: str, fused: bool, attention_run: AttentionRun) -> None:
    case = MATRIX[name]
    data, found = attention_run(case)
    y, caches = run_body(case, data, fused=fused)
    assert head_errors(case, found.y, y) <= tolerances(case)["y"]
    for mine, theirs in zip((found.key_cache, found.value_cache), caches, strict=True):
        np.testing.assert_array_equal(np.nan_to_num(mine.astype(np.float32), nan=POISON), theirs)


def test_the_comparison_bites(attention_run: AttentionRun) -> None:
    """Another scale by a fiftieth, or a call a row further, is seen."""
    case = MATRIX["prefill base"]
    data, found = attention_run(case)
    y, _ = run_body(replace(case, scale=case.factor * 1.02), data, fused=True)
    assert head_errors(case, found.y, y) > tolerances(case)["y"]
    _, (keys, _) = run_body(case, replace(data, position=[p + 1 for p in data.position]), fused=True)
    assert not np.array_equal(np.nan_to_num(found.key_cache.astype(np.float32), nan=POISON), keys)
