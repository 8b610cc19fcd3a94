"""Stage `calls`: one prefill and one decode step, for a tool that watches them."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.results import Found

_TOKENS = 16


def run(place: Place) -> Found:
    """How many of each call's logits are finite."""
    with closing(place.backend()) as backend:
        tokens = min(_TOKENS, backend.max_tokens, backend.max_context)
        found = Found()
        backend.start(1)
        for name, at, count in (("prefill", 0, tokens), ("decode", min(tokens, backend.max_context - 1), 1)):
            logits = backend.call(np.ones((1, count), np.int64), np.array([at]), np.array([count]))
            found[name] = int(np.isfinite(logits).sum())
        return found
