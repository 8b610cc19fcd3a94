"""Quantised matrices as the oracle reads them: by the formats' formulas, written a second time.

What ships goes through `checkpoint.formats`. An oracle that did too would agree with every fault in there; this one
shares with it where the pieces lie and nothing else: PyTorch's numbers of 8 bits, E2M1 from sign, exponent and
mantissa, each scale spread over its columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from elastic_export.checkpoint.formats.fp8 import FP8
from elastic_export.checkpoint.formats.nvfp4 import NVFP4
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.tensors import QuantisedTensor

Rows = slice | npt.NDArray[np.int64]
_AT_ONCE: Final = 1 << 20  # elements, each of which takes some 30 bytes on its way


def read_again(checkpoint: Checkpoint, name: str, rows: Rows = slice(None)) -> npt.NDArray[Any]:
    """A tensor of the parent, or some rows of it: a quantised matrix in float32, others as they are stored.

    Codes that are no numbers come as NaN: whoever computes with them is told of the tensor.
    """
    tensor = checkpoint.tensors[name]
    if not isinstance(tensor, QuantisedTensor):
        return checkpoint.read(name, rows)
    pieces, decode = checkpoint.pieces(tensor), SECOND[tensor.format.name]
    numbers = [torch.tensor(number) for number in tensor.whole]
    kept = np.arange(tensor.shape[0])[rows]
    found = torch.empty(len(kept), tensor.shape[1])
    step = max(1, _AT_ONCE // tensor.shape[1])
    for at in range(0, len(kept), step):
        some = kept[at : at + step]
        found[at : at + step] = decode(*(torch.from_numpy(piece[some]) for piece in pieces), *numbers)
    array: npt.NDArray[Any] = found.numpy()
    return array


def _fp8(weight: Tensor, weight_scale: Tensor) -> Tensor:
    """Uint8 [n, K], float32 [] -> float32 [n, K]."""
    return weight.view(torch.float8_e4m3fn).float() * weight_scale


def _nvfp4(weight: Tensor, weight_scale: Tensor, weight_scale_2: Tensor) -> Tensor:
    """Uint8 [n, K/2], uint8 [n, K/16], float32 [] -> float32 [n, K]."""
    codes = torch.stack([weight.bitwise_and(0x0F), weight.bitwise_right_shift(4)], dim=-1)
    values = _e2m1(torch.arange(16)).index_select(0, codes.flatten().int()).view(len(weight), -1)
    spread = weight_scale.view(torch.float8_e4m3fn).float().repeat_interleave(16, dim=1)
    return values * spread * weight_scale_2


def _e2m1(codes: Tensor) -> Tensor:
    """Codes 0 to 15: sign, two bits of exponent with a bias of 1, one bit of mantissa -> float32."""
    exponent, mantissa = codes // 2 % 4, codes % 2 / 2
    magnitude = torch.where(exponent == 0, mantissa, (1 + mantissa) * torch.exp2(exponent - 1.0))
    return torch.where(codes >= 8, -magnitude, magnitude)


#: By the format's name; one for each that is read.
SECOND: Final[dict[str, Callable[..., Tensor]]] = {FP8.name: _fp8, NVFP4.name: _nvfp4}
