"""The one table of tolerances: relative L2 error ‖a-b‖/‖b‖ of a compared tensor, by check and dtype, with reasons."""

from __future__ import annotations

from dataclasses import dataclass

from elastic_export.verify.compare import Difference


@dataclass(frozen=True)
class Tolerance:
    """A bound on the relative L2 error of every compared tensor, and why it is what it is.

    `state` is the bound of states, where they come closer than the rest. `share` bounds the share of a layer's branch
    values that differ at all: the mark of one rounding too many.

    Where a tensor is outside, a check may measure how far two right implementations are apart on the model at hand
    (`Difference.noise`); the bound is then `NOISE` times that if it is more than the table's, and never more than
    `MOST` times the table's: wide models round differently more often, and a fault is still outside.
    """

    error: float
    reason: str
    share: float = 1.0
    state: float | None = None

    def bound(self, tensor: str) -> float:
        """The bound on one tensor's relative error."""
        is_state = "_state" in tensor or "_cache" in tensor
        return self.error if self.state is None or not is_state else self.state

    def bounds(self, found: Difference) -> tuple[float, float]:
        """The bounds that a tensor's error and its share of differing values are held against, noise counted."""
        share = _relaxed(self.share, found.noise_share) if found.tensor.startswith("branch.") else 1.0
        return _relaxed(self.bound(found.tensor), found.noise), share

    def holds(self, found: Difference) -> bool:
        """Whether a tensor's figures are within the bounds (a NaN is not)."""
        error, share = self.bounds(found)
        return found.error <= error and (share == 1.0 or found.share <= share)


#: onnxruntime's sums are up to 15 times less exact than PyTorch's, of which the noise is measured.
NOISE = 10.0
#: How far measured noise can push a bound.
MOST = 2.5


def _relaxed(bound: float, noise: float) -> float:
    return min(MOST * bound, max(bound, NOISE * noise))


#: check -> precision of the model -> bound.
TOLERANCES: dict[str, dict[str, Tolerance]] = {
    # The same arithmetic in another order: float32 has 6e-8, a hundred ops deep 1e-6 is seen; 1e-4 is for more depth.
    "float32": dict.fromkeys(("fp32", "bf16", "fp16"), Tolerance(1e-4, "float32 on both sides, sums in another order")),
    # Each layer from the same inputs with the same roundings: where two sums differ in the last bit, a value may round
    # to the other side. Measured in BF16: 9e-4 and 7 % of a branch on the demo; 1.3e-3 and 19 % at a hidden size of
    # 2048, states 3.5e-4. A norm in BF16: 6e-3 and 70 % of the branch, 2.7e-3 in the states behind it.
    "rounded": {
        "bf16": Tolerance(2e-3, "single roundings to 8 bits fall to the other side", share=0.25, state=1e-3),
        "fp16": Tolerance(5e-4, "single roundings to 11 bits fall to the other side", share=0.25, state=6e-5),
        # One layer, where `float32` has them all behind each other.
        "fp32": Tolerance(1e-4, "float32 against float64, sums in another order"),
    },
    # Exact, but for the float32 in which the file stores them (6e-8).
    "attributes": dict.fromkeys(("fp32", "bf16", "fp16"), Tolerance(1e-6, "numbers of the config, stored in float32")),
}
