"""The scan of the Mamba-2 mixer in chunks: what `equations.py` computes token by token, as products of matrices.

Inside a chunk every token sees the earlier ones through a triangle of decays; between chunks a state is handed on (Dao
and Gu 2024, arXiv 2405.21060, section 6). Sums are in another order, so that the last bits differ.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Tokens of a chunk: work inside one grows with its square, work between chunks with their number. Another number than
#: that of the function body, which this judges: no fault at the boundaries of its chunks is one of these as well.
CHUNK = 48


def chunked_scan(x: Tensor, B: Tensor, C: Tensor, dt: Tensor, A: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """S_t = exp(dt_t·A)·S_{t-1} + dt_t·x_t ⊗ B_t and y_t = S_t·C_t.

    Args:
        x: [B, T, H, P].
        B: [B, T, G, N], C the same; head h reads group ⌊h/(H/G)⌋.
        dt: [B, T, H]; a step of zero changes no state.
        A: [H], negative.
        state: [B, H, P, N], before the first token.

    Returns:
        y [B, T, H, P] and the last state.
    """
    outputs = []
    for start in range(0, dt.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        y, state = _chunk(x[:, part], B[:, part], C[:, part], dt[:, part], A, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def _chunk(x: Tensor, B: Tensor, C: Tensor, dt: Tensor, A: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    heads = x.shape[2] // B.shape[2]
    # [B, H, T]: logarithm of the decay from before the chunk to after token t. In float64, since what is needed below
    # are small differences of these large sums.
    total = (dt.double() * A.double()).cumsum(dim=1).transpose(1, 2)
    between = total[..., :, None] - total[..., None, :]  # [B, H, t, j]: from after token j to after token t
    later = torch.ones(between.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
    decay = between.masked_fill(later, -torch.inf).to(x.dtype).exp()
    scores = (C.transpose(1, 2) @ B.permute(0, 2, 3, 1)).repeat_interleave(heads, dim=1)  # [B, H, t, j]: C_t·B_j
    fed = (dt[..., None] * x).transpose(1, 2)  # [B, H, T, P]
    entering = total.to(x.dtype).exp()[..., None]
    seen = C.transpose(1, 2).repeat_interleave(heads, dim=1) @ state.transpose(2, 3)  # [B, H, T, P]: S_before·C_t
    y = (scores * decay) @ fed + entering * seen
    left = (total[..., -1:] - total).to(x.dtype).exp()[..., None]  # from after token j to the end of the chunk
    kept = B.transpose(1, 2).repeat_interleave(heads, dim=1)
    return y.transpose(1, 2), entering[:, :, -1:] * state + (left * fed).transpose(2, 3) @ kept
