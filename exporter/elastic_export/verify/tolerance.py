"""The one table of tolerances: relative L2 error ‖a-b‖/‖b‖ of each compared tensor, by check and dtype, with reasons."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """A bound on the relative L2 error of logits and of every state, and why it is what it is."""

    error: float
    reason: str


#: check -> precision of the model -> bound.
TOLERANCES: dict[str, dict[str, Tolerance]] = {
    # The same arithmetic in another order: float32 has 6e-8, a hundred ops deep 1e-6 is seen; 1e-4 leaves room for depth.
    "float32": dict.fromkeys(
        ("fp32", "bf16", "fp16"), Tolerance(1e-4, "float32 on both sides, sums in another order")
    ),
    # Each layer from the same inputs with the same roundings: where two sums differ in the last bit, a value may round to
    # the other side. Measured 1e-6 to 5e-4 in BF16, an eighth of that in FP16; one rounding too many is 1.5e-3 and 2e-4.
    "rounded": {
        "bf16": Tolerance(1e-3, "single roundings to 8 bits fall to the other side; one rounding too many gives 1.5e-3"),
        "fp16": Tolerance(1.3e-4, "single roundings to 11 bits fall to the other side; one rounding too many gives 2e-4"),
    },
}
