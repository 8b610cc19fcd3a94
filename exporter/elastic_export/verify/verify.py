"""Verifies budgets: masked parent against the shipped files' twins, and the golden runs for later replays.

One pass over the parent's layers serves all budgets: a layer's weights are read, every budget's masked parent and
every file's piece go through it, outputs and states are compared and dropped, and the next layer comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from elastic_export.checkpoint.conversion import convert, stored_dtype
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.emit import EmittedModel
from elastic_export.layers.budget import Budget
from elastic_export.layers.eight_bits import EightBits
from elastic_export.ops.all_ops import SHIPPED
from elastic_export.ops.contract import ACTIVATIONS
from elastic_export.verify.attributes import check_attributes
from elastic_export.verify.compare import Comparison, Difference
from elastic_export.verify.oracle import Oracle
from elastic_export.verify.plan import Plan
from elastic_export.verify.second_reading import read_again
from elastic_export.verify.tolerance import TOLERANCES, Tolerance
from elastic_export.verify.way import Way, head_blocks
from elastic_export.verify.workers import workers_for
from elastic_runtime.errors import BuildError
from elastic_runtime.format.golden import Golden
from elastic_runtime.ort.weight_source import WeightSource

#: What each check compares the file with.
AGAINST = {
    "float32": "masked parent (PyTorch), rows one at a time without padding",
    "rounded": "masked parent (PyTorch), rows one at a time without padding",
    "attributes": "sub-model's architecture",
}
#: What an op takes in the dtype of its activations by its contract, whatever the file keeps it in.
_TAKEN_NARROW = tuple(
    f".mixer.{tensor.name}"
    for op in SHIPPED.values()
    for kind in op.per_layer
    for tensor in kind.tensors
    if tensor.operand and op.contract.dtype_of(tensor.operand) == ACTIVATIONS
)


@dataclass(frozen=True)
class Check:
    """One comparison and whether it held."""

    name: str
    tolerance: Tolerance
    comparison: Comparison

    @property
    def passed(self) -> bool:
        """Every tensor within the tolerance (a NaN is not)."""
        return not self.failures

    @property
    def failures(self) -> tuple[Difference, ...]:
        """The tensors outside the tolerance, the worst first."""
        holds, found = self.tolerance.holds, self.comparison.differences
        failed = [difference for difference in found if not holds(difference)]
        return tuple(sorted(failed, key=lambda difference: -difference.error))


@dataclass(frozen=True)
class Verification:
    """The checks of one budget and its golden run."""

    budget: str
    plan: Plan
    checks: tuple[Check, ...]
    golden: Golden

    @property
    def passed(self) -> bool:
        """All checks held."""
        return all(check.passed for check in self.checks)

    @property
    def error(self) -> float:
        """The worst error of the float32 check."""
        return self.checks[0].comparison.worst.error


def make_oracle(checkpoint: Checkpoint, precision: str, eight_bits: EightBits | None = None) -> Oracle:
    """The parent of a checkpoint, its weights rounded as an export of `precision` stores them; those in `eight_bits` to
    eight bits and back.
    """
    names = frozenset(() if eight_bits is None else eight_bits.tensors)

    def read(name: str, rows: slice | npt.NDArray[np.int64] = slice(None)) -> npt.NDArray[np.float32]:
        if name in names:
            read = eight_bits_and_back(read_again(checkpoint, name, rows).astype(np.float32))
        else:
            read = taken(stored_weight(checkpoint, name, precision, rows), name, precision).astype(np.float32)
        checkpoint.release(name)  # that was a copy, and the pages of a whole checkpoint are much memory
        return read

    return Oracle(checkpoint.architecture, read, checkpoint.prefix, names)


def eight_bits_and_back(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows of a matrix as their values in eight bits mean them: of `max|row| / 127` the nearest multiples, ties to the
    even one.

    From the parent and from the definition, by nothing that writes the file: what is misplaced there is seen here.
    """
    scale: npt.NDArray[np.float32] = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
    scale[scale < np.finfo(np.float32).tiny] = 1.0  # such a row is kept as zeros
    found: npt.NDArray[np.float32] = np.round(rows / scale) * scale
    return found


def stored_weight(
    checkpoint: Checkpoint, name: str, precision: str, rows: slice | npt.NDArray[np.int64] = slice(None)
) -> npt.NDArray[Any]:
    """A tensor, or some rows of it, in the dtype in which an export of `precision` stores it."""
    dtype = stored_dtype(checkpoint.tensors[name].dtype, checkpoint.dtype, precision)
    return convert(read_again(checkpoint, name, rows), dtype, name)


def taken(weight: npt.NDArray[Any], name: str, precision: str) -> npt.NDArray[Any]:
    """A stored tensor in the dtype in which a model of `precision` computes with it."""
    return convert(weight, precision, name) if name.endswith(_TAKEN_NARROW) else weight


@dataclass(frozen=True)
class Subject:
    """What is verified: the file that ships (it is read back from disk), its weights as a consumer loads them, and the
    calls that are made.
    """

    budget: Budget
    emitted: EmittedModel
    weights: WeightSource
    plan: Plan


def verify_budgets(oracle: Oracle, subjects: Sequence[Subject]) -> list[Verification]:
    """Run the plans on both sides and compare logits and every state after each call.

    Memory: one layer of the parent and the pieces of two files that compute it in float32, of two budgets at a time
    what the rounded twin recorded and the judge's states and activations in float64, and of every budget the streams
    and the logits of all calls on both sides.

    Raises:
        InputError: a value of the parent is not finite, or the weights are not those of the file.
        BuildError, InternalError: a file is none that onnxruntime runs, or has not the layers of its budget.
    """
    with workers_for(oracle.architecture.hidden_size) as workers, torch.inference_mode():
        ways = [Way(oracle, s.budget, s.emitted, s.weights, s.plan, workers.threads) for s in subjects]
        for index, _, _ in oracle.architecture.layers():
            with oracle.loaded_layer(index) as block:
                workers.run(task for way in ways for task in way.layer(block))
        with oracle.loaded_norm():
            for way in ways:
                way.begin_head()
        blocks = head_blocks(oracle.architecture)
        for first, count in blocks:
            weight = oracle.head_rows(first, count)
            workers.run(task for way in ways for task in way.head(first, weight))
        return [_verification(way, subject, blocks) for way, subject in zip(ways, subjects, strict=True)]


def _verification(way: Way, subject: Subject, blocks: Sequence[tuple[int, int]]) -> Verification:
    precision, emitted = subject.emitted.precision, subject.emitted
    way.finish(blocks)
    attributes = check_attributes(way.file, emitted.architecture)
    found = {"float32": way.float32(), "rounded": way.judge.comparison(), "attributes": attributes}
    checks = [Check(name, TOLERANCES[name][precision], comparison) for name, comparison in found.items()]
    return Verification(subject.budget.name, subject.plan, tuple(checks), way.golden())


def require_passed(verification: Verification) -> None:
    """Raise BuildError that names the check, the tensor and the call unless everything held."""
    for check in verification.checks:
        for failure in check.failures[:1]:
            (error, share), against = check.tolerance.bounds(failure), AGAINST[check.name]
            differing = f" and at most {share:.1%} of the values different" if share < 1.0 else ""
            raise BuildError(
                f"budget {verification.budget}, {check.name} check, {failure.tensor} after call {failure.call}",
                expected=f"a relative error of at most {error:g}{differing} against the {against}",
                found=f"{failure.error:.3g}, with {failure.share:.1%} of the values different",
                todo="no bundle was written; the whole report lies beside it, OUT.failed.json",
            )
