"""Token ids that a caller gives, checked before anything is fed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from elastic_runtime.errors import InputError
from elastic_runtime.format.records import is_integer, show

_ENCODE = "encode text with Tokenizer first"
Ids = Sequence[int] | npt.NDArray[np.integer[Any]]


def checked_ids(ids: Ids, where: str, vocab_size: int) -> list[int]:
    """Integers of the vocabulary. A bool, a float and a digit are none. Raises InputError about `where`."""
    try:
        values = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    except TypeError:
        raise InputError(where, expected="a sequence of integers", found=show(ids), todo=_ENCODE) from None
    for value in values:
        if not is_integer(value):
            raise InputError(where, expected="a sequence of integers", found=show(value), todo=_ENCODE)
        if not 0 <= value < vocab_size:
            raise InputError(
                where,
                expected=f"0 to {vocab_size - 1}",
                found=show(value),
                todo="encode the text with the tokenizer of this bundle",
            )
    return [int(value) for value in values]
