"""The one table of tolerances: relative L2 error ‖a-b‖/‖b‖ of a compared tensor, by check and dtype, with reasons."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """A bound on the relative L2 error of every compared tensor, and why it is what it is.

    `state` is the bound of states, where they come closer than the rest. `share` bounds the share of a layer's branch
    values that differ at all: the mark of one rounding too many.
    """

    error: float
    reason: str
    share: float = 1.0
    state: float | None = None

    def bound(self, tensor: str) -> float:
        """The bound on one tensor's relative error."""
        is_state = "_state" in tensor or "_cache" in tensor
        return self.error if self.state is None or not is_state else self.state

    def holds(self, tensor: str, error: float, share: float) -> bool:
        """Whether a tensor's figures are within the bounds (a NaN is not)."""
        return error <= self.bound(tensor) and (not tensor.startswith("branch.") or share <= self.share)


#: check -> precision of the model -> bound.
TOLERANCES: dict[str, dict[str, Tolerance]] = {
    # The same arithmetic in another order: float32 has 6e-8, a hundred ops deep 1e-6 is seen; 1e-4 is for more depth.
    "float32": dict.fromkeys(("fp32", "bf16", "fp16"), Tolerance(1e-4, "float32 on both sides, sums in another order")),
    # Each layer from the same inputs with the same roundings: where two sums differ in the last bit, a value may round
    # to the other side. Measured on the demo in BF16: up to 9e-4 and 7 % of a branch. A norm in BF16: 6e-3 and 70 %.
    # States stand before any second rounding (2e-5 measured); one that was itself rounded to BF16 gives 1e-3.
    "rounded": {
        "bf16": Tolerance(2e-3, "single roundings to 8 bits fall to the other side", share=0.25, state=3e-4),
        "fp16": Tolerance(5e-4, "single roundings to 11 bits fall to the other side", share=0.25, state=6e-5),
    },
    # Exact, but for the float32 in which the file stores them (6e-8).
    "attributes": dict.fromkeys(("fp32", "bf16", "fp16"), Tolerance(1e-6, "numbers of the config, stored in float32")),
}
