"""The one table of tolerances: relative L2 error ‖a-b‖/‖b‖ of each compared tensor, by check and dtype, with reasons."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """A bound on the relative L2 error of every compared tensor, and why it is what it is.

    `share` bounds the share of a layer's branch values that differ at all: the mark of one rounding too many.
    """

    error: float
    reason: str
    share: float = 1.0


#: check -> precision of the model -> bound.
TOLERANCES: dict[str, dict[str, Tolerance]] = {
    # The same arithmetic in another order: float32 has 6e-8, a hundred ops deep 1e-6 is seen; 1e-4 leaves room for depth.
    "float32": dict.fromkeys(("fp32", "bf16", "fp16"), Tolerance(1e-4, "float32 on both sides, sums in another order")),
    # Each layer from the same inputs with the same roundings: where two sums differ in the last bit, a value may round to
    # the other side. Measured on the demo in BF16: up to 9e-4 and 7 % of a branch. A norm in BF16 gives 6e-3 and 70 %.
    "rounded": {
        "bf16": Tolerance(2e-3, "single roundings to 8 bits fall to the other side", share=0.25),
        "fp16": Tolerance(5e-4, "single roundings to 11 bits fall to the other side"),
    },
}
