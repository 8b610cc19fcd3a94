"""What the engine builder can build, as pure functions of the request: asked before anything is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from elastic_export.dtypes import DTYPES
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.attention import ATTENTION
from elastic_export.ops.all_ops import SHIPPED
from elastic_export.ops.cached_attention import CACHED_ATTENTION
from elastic_export.ops.contract import read_contract
from elastic_export.ops.plugins import misfits, plugin_ops
from elastic_export.products import TENSORRT_RTX, Product
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.interface import ALIAS_RULES, OpsMode, Precision, StateKind

#: BF16 needs SM80 ("the model contains HW-specific datatypes: b16").
NO_BF16 = frozenset({"SM75"})

#: Of an axis: above it TensorRT-RTX 1.7 fails to build, with an error that speaks of something else.
LARGEST_SIZE = (1 << 31) - 1
#: Tokens of a call where nobody says: each call reads the weights, runs the head and expands attention's cache once, so
#: that a prompt in calls of 256 takes a fifth longer; from 1024 on little is won, and scratch grows with it.
MAX_TOKENS = 1024


def largest_context(
    architecture: Architecture, precision: Precision, ops: OpsMode, product: Product = TENSORRT_RTX
) -> int | None:
    """Largest max_context that builds for that model in an ops mode, tokens; None where attention sets no limit.

    With plugins that of the op's contract; natively, and in a plugin engine whose attention the plugin does not take,
    that of the product's own kernel.
    """
    heads, head_dim = architecture.attention_heads, architecture.attention_head_dim
    if not architecture.count(ATTENTION):
        return None
    if ops == "plugin" and CACHED_ATTENTION in plugin_ops(architecture, precision):
        return CACHED_ATTENTION.contract.limits["S"][1]
    if product.attention is None:
        return None
    if not product.attention.takes(precision, heads, head_dim):
        return None
    return product.attention.largest_context(head_dim)


def check_limits(
    architecture: Architecture,
    *,
    product: Product = TENSORRT_RTX,
    ops: OpsMode,
    precision: Precision,
    compute_capabilities: Sequence[str],
    max_tokens: int,
    max_context: int,
    max_batch: int,
) -> None:
    """Refuse what cannot be built.

    Raises:
        InputError: naming the option at fault and the value that would do.
    """
    check_sizes(max_tokens=max_tokens, max_context=max_context, max_batch=max_batch)
    check_precision(precision, compute_capabilities)
    if ops == "plugin":
        if not product.plugins:
            found = f"{product.called}, which puts none in place of a function body"
            raise InputError("--ops plugin", expected="a product with plugins", found=found, todo="use --ops native")
        check_plugins(architecture, precision)
        _check_call(architecture, precision, {"--max-tokens": ("T", max_tokens), "--max-batch": ("B", max_batch)})
    largest = largest_context(architecture, precision, ops, product)
    if largest is not None and max_context > largest:
        raise InputError(
            "--max-context",
            expected=f"at most {largest} with {ops} ops (attention head size {architecture.attention_head_dim} in"
            f" {precision})",
            found=str(max_context),
            todo=f"lower --max-context to {largest}, over more rows no attention kernel decodes"
            + _with_more(architecture, precision, ops, product, max_context),
        )


def _with_more(architecture: Architecture, precision: Precision, ops: OpsMode, product: Product, context: int) -> str:
    """The ops mode that takes that context, as a way out; empty where there is none."""
    if ops == "plugin" or not can_have_plugins(architecture, precision, product):
        return ""
    most = largest_context(architecture, precision, "plugin", product)
    if most is not None and context > most:
        return ""
    return ", or use --ops plugin" + ("" if most is None else f", which takes up to {most}")


def can_have_plugins(architecture: Architecture, precision: Precision, product: Product) -> bool:
    """Whether a plugin engine of that model can be built."""
    if not product.plugins or not plugin_ops(architecture, precision):
        return False
    return all(misfit.op.inlines for misfit in misfits(architecture, precision))


def check_plugins(architecture: Architecture, precision: Precision) -> None:
    """Refuse a layer that its plugin's kernels have no room for, by the limits of the op's contract.

    Attention is none of these: a plugin engine then holds it as it is in a native one.

    Raises:
        InputError: naming the size; native layers take any.
    """
    for misfit in misfits(architecture, precision):
        if not misfit.op.inlines:
            raise InputError("--ops plugin", expected=misfit.expected, found=misfit.found, todo="use --ops native")


def _check_call(architecture: Architecture, precision: Precision, sizes: Mapping[str, tuple[str, int]]) -> None:
    """Refuse calls that a plugin's kernels have no room for: by option, the contract's symbol and the size asked for.

    Raises:
        InputError: naming the option.
    """
    for op in plugin_ops(architecture, precision):
        for option, (symbol, size) in sizes.items():
            most = op.contract.limits.get(symbol, (1, LARGEST_SIZE))[1]
            if size > most:
                expected = f"at most {most} with plugin ops ({op.contract.name})"
                raise InputError(option, expected=expected, found=str(size), todo=f"lower {option}")


def check_contracts() -> None:
    """Check that the contracts of our ops let states share the buffers that the interface says, as plugin and native.

    The kernels are written to the contract, and a runtime binds buffers by the interface: where the two differ, one
    buffer serves an op that reads and writes two, which is a race on the card that no build would show.

    Raises:
        BuildError: naming the output and both rules. No request can cause it, but a mixed installation can.
    """
    for op in SHIPPED.values():
        contract = read_contract(op.folder)
        for kind in sorted(ALIAS_RULES.keys() & {operand["name"] for operand in contract["inputs"]}):
            _check_alias(contract, kind)


def _check_alias(contract: dict[str, Any], kind: StateKind) -> None:
    declared = {o["alias"]["input"]: (o["name"], o["alias"]) for o in contract["outputs"] if "alias" in o}
    output, rules = declared.get(kind, (f"{kind}_out", {}))
    for ops, rule in ALIAS_RULES[kind].items():
        if rules.get(ops) != rule:
            raise BuildError(
                f"{output} of {contract['name']}",
                expected=f"the rule {rule} for the buffer of {kind}, as in the interface",
                found=f"{rules.get(ops, 'no rule')} in its contract for {ops} ops",
                todo="install elastic-export again: its contract.json and interface.py are of different versions",
            )


def check_sizes(*, max_tokens: int, max_context: int, max_batch: int) -> None:
    """Refuse sizes no engine can have.

    Raises:
        InputError: a size below 1 or beyond 31 bits, or calls longer than the cache they write (the cache update writes
            all T rows).
    """
    sizes = {"--max-tokens": max_tokens, "--max-context": max_context, "--max-batch": max_batch}
    for option, value in sizes.items():
        if value < 1:
            raise InputError(option, expected="1 or more", found=str(value), todo=f"leave {option} out or raise it")
        if value > LARGEST_SIZE:
            raise InputError(option, expected=f"at most {LARGEST_SIZE}", found=str(value), todo=f"lower {option}")
    if max_tokens > max_context:
        raise InputError(
            "--max-tokens",
            expected=f"at most --max-context ({max_context})",
            found=str(max_tokens),
            todo="lower --max-tokens or raise --max-context",
        )


def check_precision(precision: str, compute_capabilities: Sequence[str]) -> None:
    """Refuse a precision nobody knows or one that a compute capability lacks.

    Raises:
        InputError: naming both.
    """
    if precision not in DTYPES:
        known = ", ".join(DTYPES)
        raise InputError("--precision", expected=known, found=repr(precision), todo="name one of them, or none")
    lacking = sorted(NO_BF16.intersection(compute_capabilities)) if precision == "bf16" else []
    if lacking:
        raise InputError(
            "--precision",
            expected=f"fp16 or fp32 for {', '.join(lacking)}",
            found="bf16, which that hardware lacks",
            todo="use --precision fp16 or leave that target out",
        )
