"""One call of the reference: what a forward carries through the layers besides the residual stream."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from elastic_export.reference.masks import Masks
from elastic_export.reference.state import State

#: Rounds what is stored between ops; the identity for a model that is computed exactly.
Round = Callable[[Tensor], Tensor]


def _exact(x: Tensor) -> Tensor:
    return x


class Call:
    """Where the call stands in its sequences, the states before it, the budget's masks; layers add the new states.

    With `rounding` to a narrow dtype, what is stored between ops is rounded: the arithmetic of a model whose matmuls
    accumulate wide and whose activations are narrow. Weights are expected to be rounded already.
    """

    def __init__(self, position: Tensor, length: Tensor, state: State, masks: Masks, rounding: Round = _exact) -> None:
        self.position, self.length, self.state, self.masks, self.round = position, length, state, masks, rounding
        self.new_state: State = {}

    def product(self, y: Tensor, unit: Tensor | None) -> Tensor:
        """A product y [..., out] as it is stored; with `unit` [out] it was first stored in these units, as a model does
        whose int8 weights meet their rows' scales behind the product.
        """
        if unit is None or self.round is _exact:
            return self.round(y)
        unit = unit.to(y.dtype)
        return self.round(self.round(y / unit) * unit)

    def each(self, function: Callable[..., Tensor], *values: Tensor) -> Tensor:
        """`function(call, *values)` of what mixes a sequence's tokens: values and result are [B, T, …].

        Here of all rows at once; `Segments`, which holds many calls, asks it of each of them.
        """
        return function(self, *values)
