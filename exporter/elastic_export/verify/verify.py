"""Verifies one budget: masked parent against the shipped file's twins, and the golden run for later replays."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from elastic_export.checkpoint.conversion import convert, stored_dtype
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.dtypes import DTYPES
from elastic_export.emit import EmittedModel
from elastic_export.layers.budget import Budget
from elastic_export.ops.all_ops import SHIPPED
from elastic_export.ops.contract import ACTIVATIONS
from elastic_export.reference import budget_masks
from elastic_export.verify.attributes import check_attributes
from elastic_export.verify.compare import Comparison, Difference, compare_runs
from elastic_export.verify.onnx_model import OnnxModel
from elastic_export.verify.oracle import Oracle, Snapshot
from elastic_export.verify.plan import POISON, Plan, walk
from elastic_export.verify.rounded import check_rounded
from elastic_export.verify.tolerance import TOLERANCES, Tolerance
from elastic_runtime.errors import BuildError
from elastic_runtime.format.golden import Golden
from elastic_runtime.format.sketch import sketch, written_rows

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
_WIDE = 1024  # channels from which on more threads pay


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
    seconds: float

    @property
    def passed(self) -> bool:
        """All checks held."""
        return all(check.passed for check in self.checks)

    @property
    def error(self) -> float:
        """The worst error of the float32 check."""
        return self.checks[0].comparison.worst.error


def make_oracle(checkpoint: Checkpoint, precision: str) -> Oracle:
    """The parent of a checkpoint, its weights rounded as an export of `precision` stores them."""

    def read(name: str) -> npt.NDArray[np.float32]:
        weight = stored_weight(checkpoint, name, precision)
        if name.endswith(_TAKEN_NARROW):
            weight = convert(weight, precision, name)
        return weight.astype(np.float32)

    return Oracle(checkpoint.architecture, read, checkpoint.prefix)


def stored_weight(checkpoint: Checkpoint, name: str, precision: str) -> npt.NDArray[Any]:
    """A tensor in the dtype in which an export of `precision` stores it."""
    dtype = stored_dtype(checkpoint.tensors[name].dtype, checkpoint.dtype, precision)
    return convert(checkpoint.read(name), dtype, name)


def verify_budget(
    oracle: Oracle, budget: Budget, emitted: EmittedModel, weights: Iterable[tuple[str, npt.NDArray[Any]]], plan: Plan
) -> Verification:
    """Run the plan on both sides and compare logits and every state after each call.

    Args:
        oracle: the masked parent.
        budget: what to mask.
        emitted: the file that ships; it is read back from disk.
        weights: its weight inputs, as a consumer loads them.
        plan: the calls.
    """
    with _threads_for(oracle.architecture.hidden_size):
        return _verify(oracle, budget, emitted, list(weights), plan)


def _verify(
    oracle: Oracle, budget: Budget, emitted: EmittedModel, held: list[tuple[str, npt.NDArray[Any]]], plan: Plan
) -> Verification:
    start = time.perf_counter()
    model = onnx.load(emitted.path, load_external_data=True)
    masks = budget_masks(oracle.architecture, budget)
    expected = oracle.run(masks, emitted.state_slices, plan, every_token=len(emitted.logits.shape) == 3)
    got = run_twin(OnnxModel(model, held), plan, oracle.architecture.vocab_size)
    checks = [Check("float32", TOLERANCES["float32"][emitted.precision], compare_runs(got, expected, plan))]
    if emitted.precision != "fp32":
        storage = DTYPES[emitted.precision].torch
        rounded = check_rounded(oracle, masks, budget, emitted, model, held, plan, storage)
        checks.append(Check("rounded", TOLERANCES["rounded"][emitted.precision], rounded))
    attributes = check_attributes(model, emitted.architecture)
    checks.append(Check("attributes", TOLERANCES["attributes"][emitted.precision], attributes))
    return Verification(budget.name, plan, tuple(checks), _golden(plan, expected), time.perf_counter() - start)


@contextmanager
def _threads_for(width: int) -> Iterator[None]:
    """One PyTorch thread for a small model: its ops end before the others have met, and on a busy machine they wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if width < _WIDE else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_twin(twin: OnnxModel, plan: Plan, vocab: int) -> list[Snapshot]:
    """A twin's answer to every call: one ragged batch, junk in the padding, poison in unwritten cache rows."""
    state, answers = twin.empty_state(len(plan.ids), plan.context, cache_fill=POISON), list[Snapshot]()
    for ids, position, length in walk(plan, vocab):
        logits, state = twin.call(ids, position, length, state)
        answers.append(Snapshot(logits, state))
    return answers


def _golden(plan: Plan, reference: list[Snapshot]) -> Golden:
    lengths = np.array([step.length for step in plan.steps], np.int64)
    ends = lengths.cumsum(axis=0)
    final = reference[-1].states
    states = {n: sketch(written_rows(s, ends[-1]) if "cache" in n else s) for n, s in final.items()}
    return Golden(
        seed=plan.seed,
        ids=plan.ids,
        tokens=np.array([step.tokens for step in plan.steps], np.int64),
        position=ends - lengths,
        length=lengths,
        logits=np.stack([_last_logits(*pair) for pair in zip(reference, lengths, strict=True)]),
        states=states,
    )


def _last_logits(snapshot: Snapshot, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """[B, V]: logits of each row's last real token, zeros for a row that was not fed."""
    found = np.zeros((len(lengths), snapshot.logits.shape[-1]), np.float32)
    for row, count in enumerate(lengths):
        found[row] = snapshot.real_logits(row, count)[-1] if count else 0.0
    return found


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
