"""Many calls of the reference side by side: linear layers run once for all of their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from elastic_export.reference.call import Call


class Segments(Call):
    """Calls of one row each and without padding, as one call: [1, N, d], their tokens one behind the other.

    What treats tokens alone does so for all N; what mixes tokens (`each`) takes the calls one by one.

    Args:
        calls: of one row each; they share masks and rounding. A layer's new states stay in them.
        follows: for each call the number of the earlier one whose new states it starts from; None: it has its own.
    """

    def __init__(self, calls: Sequence[Call], follows: Sequence[int | None]) -> None:
        position, length = (torch.cat([getattr(call, name) for call in calls]) for name in ("position", "length"))
        super().__init__(position, length, {}, calls[0].masks, calls[0].round)
        self.calls, self._follows, self._counts = calls, follows, length.tolist()

    def each(self, function: Callable[..., Tensor], *values: Tensor) -> Tensor:
        """See `Call.each`."""
        parts, results = zip(*(torch.split(value, self._counts, dim=1) for value in values), strict=True), []
        for call, before, part in zip(self.calls, self._follows, parts, strict=True):
            if before is not None:
                call.state = self.calls[before].new_state
            call.new_state = {}
            results.append(function(call, *part))
        return torch.cat(results, dim=1)
