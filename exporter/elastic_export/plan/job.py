"""What an export is asked for, checked against checkpoint and targets before anything is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from elastic_export.checkpoint.budgets import select_budgets
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.layers.eight_bits import EightBits
from elastic_export.plan.eight_bits import (
    Quantise,
    as_forms,
    eight_bits_of,
    goes_with_int8,
    odd_note,
    plan_eight_bits,
    weight_bytes,
)
from elastic_export.plan.engine_jobs import EngineJob, engine_jobs
from elastic_export.plan.fit_table import fit_table
from elastic_export.plan.limits import MAX_TOKENS, check_contracts, check_limits
from elastic_export.plan.ops_modes import OpsPlan, OpsWish, capabilities_of, plan_ops, takes_plugins
from elastic_export.plan.reckoning import budget_size
from elastic_export.plan.text import check_text
from elastic_export.products import TENSORRT_RTX, Product, ProductName, product_of
from elastic_runtime.errors import InputError
from elastic_runtime.fit.targets import Target, select_targets
from elastic_runtime.fit.vram import unfit
from elastic_runtime.format.budget_size import BudgetSize
from elastic_runtime.format.interface import PRECISIONS, OpsMode, Precision
from elastic_runtime.format.manifest import Option, WeightMode

#: onnx.load puts external data into one protobuf message, which ends at 2 GiB.
EMBEDDED_LIMIT = 3 << 29


@dataclass(frozen=True)
class ExportOptions:
    """The options of `elastic-export`, as a library takes them. Sizes in tokens; `precision` None: the checkpoint's;
    `jobs` None: as many builds side by side as the machine has processors and memory for.
    """

    budgets: str
    targets: str
    output: Path
    weights: WeightMode = "shared"
    ops: OpsWish = "auto"
    plugins: Path | None = None
    flavour: ProductName = TENSORRT_RTX.name
    precision: Precision | None = None
    quantise: Quantise = "none"
    max_tokens: int = MAX_TOKENS
    max_contexts: tuple[int, ...] = (16384,)
    max_batch: int = 1
    logits: Literal["last", "all"] = "last"
    external_weights: bool = False
    verify: bool = True
    add: bool = False
    force: bool = False
    require_fit: bool = False
    allow_unfit: bool = False
    allow_oversize: bool = False
    allow_short: bool = False
    distrust: bool = False
    jobs: int | None = None
    debug: bool = False


@dataclass(frozen=True)
class ExportJob:
    """A request that is known to be sound: what to build, of what size. `notes`: what a user should be told of it.
    `eight_bits`: the matrices that are quantised, None where none is asked to be. `budgets` are called as the entries
    of the manifest and their folders are: `6b.int8` where that is asked for (`requested`: what the request calls them).

    `engines` are those of a budget with layers of every kind; what one of its budgets gets says `engines_of`.
    """

    checkpoint: Checkpoint
    demo: bool
    options: ExportOptions
    precision: Precision
    budgets: tuple[Budget, ...]
    targets: tuple[Target, ...]
    engines: tuple[EngineJob, ...]
    sizes: tuple[BudgetSize, ...]
    ops: OpsPlan
    notes: tuple[str, ...] = ()
    eight_bits: EightBits | None = None

    @property
    def requested(self) -> tuple[str, ...]:
        """The names of `budgets` in the budget file."""
        ending = "" if self.eight_bits is None else f".{self.options.quantise}"
        return tuple(budget.name.removesuffix(ending) for budget in self.budgets)

    @property
    def parent(self) -> Architecture:
        """The parent's architecture."""
        return self.checkpoint.architecture

    @property
    def product(self) -> Product:
        """The TensorRT product that builds its engines."""
        return product_of(self.options.flavour)

    @property
    def every_token(self) -> bool:
        """Whether the graph gives the logits of all T tokens, not of each row's last one alone."""
        return self.options.logits == "all"

    @property
    def said(self) -> tuple[str, ...]:
        """All that a user should be told, of the checkpoint, its text and the ops modes: what `--json` has as notes."""
        return (*self.checkpoint.warnings, *self.notes, *((self.ops.note,) if self.ops.note else ()))

    @property
    def capabilities(self) -> dict[str, tuple[str, ...]]:
        """The compute capabilities that engines of each target hold, by its name."""
        return {target.name: engine.capabilities for engine in self.engines for target in engine.targets}

    def engines_of(self, budget: Budget) -> tuple[EngineJob, ...]:
        """The engines of one of its budgets: where none of its layers takes a plugin, those of both modes are one."""
        if takes_plugins(budget.architecture(self.parent), self.precision):
            return self.engines
        one = (engine for engine in self.engines if engine.ops == self.ops.modes[0])
        return tuple(replace(engine, ops="native", library=None) for engine in one)

    def asked(self, name: str) -> frozenset[tuple[str, int, OpsMode]]:
        """(target, max_context, ops mode) of every engine of the budget of that name."""
        [budget] = (budget for budget in self.budgets if budget.name == name)
        engines = self.engines_of(budget)
        return frozenset((t.name, engine.max_context, engine.ops) for engine in engines for t in engine.targets)

    def size_of(self, budget: Budget) -> BudgetSize:
        """What the memory of one of its budgets depends on."""
        return next(size for size in self.sizes if size.name == budget.name)

    def table(self) -> str:
        """What fits which card, as it is printed before anything is built."""
        options = self.options
        return fit_table(
            self.sizes,
            self.targets,
            contexts=options.max_contexts,
            batch=options.max_batch,
            precision=self.precision if self.eight_bits is None else f"{self.precision} with int8 weights",
            eight_bits=self._in_eight_bits(),
        )

    def _in_eight_bits(self) -> tuple[BudgetSize, ...]:
        """The sizes with `--quantize int8` beside the other options; none where they do not go together."""
        options, checkpoint = self.options, self.checkpoint
        if self.eight_bits is not None or not goes_with_int8(checkpoint, self.precision, options.weights, self.targets):
            return ()
        quantised = replace(options, precision=self.precision, quantise="int8")
        return budget_sizes(checkpoint, self.budgets, quantised, self.ops.modes[0])

    def normalised(self) -> dict[str, Option]:
        """The options that change the bundle's bytes; no paths, no times."""
        options = asdict(self.options) | {"ops": self.ops.modes[0] if len(self.ops.modes) == 1 else self.ops.modes}
        kept = ("weights", "ops", "max_tokens", "max_contexts", "max_batch", "logits", "external_weights", "verify")
        # Said only where it is another one, so that bundles of the default product keep their bytes.
        product = {} if options["flavour"] == TENSORRT_RTX.name else {"flavour": options["flavour"]}
        return {
            "budgets": tuple(budget.name for budget in self.budgets),
            "targets": tuple(target.name for target in self.targets),
            "precision": self.precision,
            **({} if options["quantise"] == "none" else {"quantize": options["quantise"]}),
            **{name: options[name] for name in kept},
            **product,
        }

    def check_fit(self) -> None:
        """Raise InputError where a target has no budget that fits it, unless `allow_unfit`."""
        options = self.options
        for target in () if options.allow_unfit else self.targets:
            fits = [
                context
                for context in options.max_contexts
                if len(unfit(self.sizes, target, context=context, batch=options.max_batch)) < len(self.sizes)
            ]
            if not fits:
                raise InputError(
                    f"target {target.name}",
                    expected="at least one budget that fits it",
                    found="none of " + ", ".join(size.name for size in self.sizes),
                    todo="ask for a smaller budget, context or batch, or build all the same with --allow-unfit",
                )

    def misfits(self) -> list[str]:
        """`budget on target at context` of everything that does not fit."""
        options = self.options
        return [
            f"{name} on {target.name} at {context} tokens"
            for target in self.targets
            for context in options.max_contexts
            for name in unfit(self.sizes, target, context=context, batch=options.max_batch)
        ]


def plan_job(checkpoint: Checkpoint, options: ExportOptions, *, demo: bool) -> ExportJob:
    """Check a request whole.

    Raises:
        InputError: an unknown product, budget or target, sizes that cannot be built, a precision the weights cannot
            have, files beside the weights that cannot be shipped or whose text would not work.
        BuildError: this installation's contracts and interface differ (`check_contracts`).
    """
    check_contracts()
    product, precision = product_of(options.flavour), options.precision or precision_of(checkpoint)
    budgets = tuple(as_forms(select_budgets(checkpoint.budgets, options.budgets), checkpoint, options.quantise))
    targets = tuple(select_targets(options.targets))
    if options.jobs is not None and options.jobs < 1:
        raise InputError("--jobs", expected="at least 1", found=f"{options.jobs}", todo="leave it out, or raise it")
    if len(set(options.max_contexts)) != len(options.max_contexts) or not options.max_contexts:
        todo = "give each context once: --max-context 4096,16384"
        raise InputError("--max-context", expected="different contexts", found=f"{options.max_contexts}", todo=todo)
    models = [budget.architecture(checkpoint.architecture) for budget in budgets]
    eight_bits = None
    if options.quantise == "int8":
        external = options.external_weights
        eight_bits = plan_eight_bits(checkpoint, precision, options.weights, external=external, targets=targets)
    capabilities = capabilities_of(targets, precision)
    ops = plan_ops(options.ops, options.plugins, product, models, precision, capabilities, options.max_contexts)
    engines = engine_jobs(targets, precision, options.max_contexts, ops)
    for model in models:
        for engine in engines:
            check_limits(
                model,
                product=product,
                ops=engine.ops,
                precision=precision,
                compute_capabilities=engine.capabilities,
                max_tokens=options.max_tokens,
                max_context=engine.max_context,
                max_batch=options.max_batch,
            )
    sizes = budget_sizes(checkpoint, budgets, options, ops.modes[0])
    _check_weights(checkpoint, options, precision, sizes)
    notes = check_text(checkpoint)
    if eight_bits is not None and (note := odd_note(eight_bits)):
        notes = (*notes, note)
    return ExportJob(checkpoint, demo, options, precision, budgets, targets, engines, sizes, ops, notes, eight_bits)


def precision_of(checkpoint: Checkpoint) -> Precision:
    """The precision of an export that names none: the checkpoint's own."""
    assert checkpoint.dtype in PRECISIONS
    return checkpoint.dtype


def budget_sizes(
    checkpoint: Checkpoint, budgets: Sequence[Budget], options: ExportOptions, ops: OpsMode = "plugin"
) -> tuple[BudgetSize, ...]:
    """What the memory of each sub-model depends on in an ops mode, before anything is built."""
    precision = options.precision or precision_of(checkpoint)
    return tuple(_size(checkpoint, budget, precision, options, ops) for budget in budgets)


def _size(
    checkpoint: Checkpoint, budget: Budget, precision: Precision, options: ExportOptions, ops: OpsMode
) -> BudgetSize:
    eight_bits = eight_bits_of(checkpoint) if options.quantise == "int8" else None
    return budget_size(
        budget.name,
        budget.architecture(checkpoint.architecture),
        precision,
        weight_bytes=weight_bytes(checkpoint, budget, precision, eight_bits),
        max_tokens=options.max_tokens,
        max_batch=options.max_batch,
        ops=ops,
        every_token=options.logits == "all",
        product=product_of(options.flavour),
    )


def _check_weights(
    checkpoint: Checkpoint, options: ExportOptions, precision: Precision, sizes: tuple[BudgetSize, ...]
) -> None:
    if options.weights == "shared" and precision != checkpoint.dtype and options.quantise == "none":
        raise InputError(
            "--precision",
            expected=f"{checkpoint.dtype}, in which the shared shards are stored",
            found=precision,
            todo="use --weights sliced, which converts the weights",
        )
    if options.weights == "shared" and checkpoint.formats and options.quantise == "none":
        raise InputError(
            "--weights shared",
            expected=f"a checkpoint whose matrices are all in {checkpoint.dtype}, in which engines take them",
            found=", ".join(f"{count} in {name}" for name, count in checkpoint.formats.items()),
            todo="use --weights sliced, which dequantises them for each budget, or --quantize int8",
        )
    if options.external_weights and options.weights != "shared":
        raise InputError(
            "--external-weights",
            expected="--weights shared",
            found=f"--weights {options.weights}",
            todo="leave out one of the two: only the parent's shards can stay outside",
        )
    largest = max(sizes, key=lambda size: size.weight_bytes)
    if options.weights == "embedded" and largest.weight_bytes > EMBEDDED_LIMIT:
        raise InputError(
            "--weights embedded",
            expected=f"at most {EMBEDDED_LIMIT} bytes of weights",
            found=f"{largest.weight_bytes} in {largest.name}",
            todo="use --weights sliced",
        )
