"""What the engine builder can build, as pure functions of the request: asked before anything is built.

Every number was measured with TensorRT-RTX 1.7.1 on one attention layer (boolean mask, in-place caches, grouped heads).
"""

from __future__ import annotations

from collections.abc import Sequence

from elastic_export.checkpoint.architecture import Architecture
from elastic_export.checkpoint.precision import FULL_NAMES
from elastic_export.engine.mixer_creator import load_declaration
from elastic_export.engine.ops import ops_of
from elastic_export.engine.request import Precision
from elastic_runtime.errors import InputError
from elastic_runtime.interface import OpsMode

#: Fused decode attention keeps one FP32 score per cache row, and the query, in 96 KiB of shared memory: S + head dim
#: ≤ 24576. Found by bisection for head dims 16, 32, 64, 80, 96, 112, 128, 160, 192 and 256 on SM120 and for 128 on
#: SM75, 80, 86 and 89, in BF16 and FP16 (SM75: FP16 only): always the same border.
FUSED_ROWS = 96 * 1024 // 4
#: BF16 needs SM80 ("the model contains HW-specific datatypes: b16").
NO_BF16 = frozenset({"SM75"})


def uses_fused_attention(precision: Precision, head_dim: int, query_heads: int) -> bool:
    """Whether attention of that shape is emitted for the builder's dedicated kernel.

    `passes.lower_attention.has_fused_kernel` decides it; this is its rule for the plan, which has to answer before the
    graph libraries are loaded. A test holds the two equal.
    """
    return precision != "fp32" and query_heads >= 4 and head_dim % 8 == 0 and 16 <= head_dim <= 256


def largest_context(architecture: Architecture, precision: Precision) -> int | None:
    """Largest max_context that builds for that model, tokens; None where attention sets no limit."""
    if "*" not in architecture.pattern:
        return None
    if not uses_fused_attention(precision, architecture.attention_head_dim, architecture.attention_heads):
        return None
    return FUSED_ROWS - architecture.attention_head_dim


def check_limits(
    architecture: Architecture,
    *,
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
    if ops_of(ops, architecture.pattern.count("M")) == "plugin":
        check_plugin(architecture)
    largest = largest_context(architecture, precision)
    if largest is not None and max_context > largest:
        raise InputError(
            "--max-context",
            expected=f"at most {largest} (attention head size {architecture.attention_head_dim} in {precision})",
            found=str(max_context),
            todo=f"lower --max-context to {largest}: no attention kernel decodes over more rows",
        )


def check_plugin(architecture: Architecture) -> None:
    """Refuse a Mamba-2 layer that the plugin's kernels have no room for, by the limits of its contract.

    Raises:
        InputError: naming the size; native mixers take any.
    """
    limits = load_declaration()["limits"]
    sizes = {
        "N": ("state size", architecture.ssm_state),
        "P": ("Mamba head size", architecture.mamba_head_dim),
        "K": ("convolution width", architecture.conv_kernel),
    }
    for symbol, (name, size) in sizes.items():
        least, most = limits[symbol]
        if not least <= size <= most:
            raise InputError(
                "--ops plugin",
                expected=f"a {name} of {least} to {most}",
                found=str(size),
                todo="use --ops native",
            )


def check_sizes(*, max_tokens: int, max_context: int, max_batch: int) -> None:
    """Refuse sizes no engine can have.

    Raises:
        InputError: a size below 1, or calls longer than the cache they write (the cache update writes all T rows).
    """
    sizes = {"--max-tokens": max_tokens, "--max-context": max_context, "--max-batch": max_batch}
    for option, value in sizes.items():
        if value < 1:
            raise InputError(option, expected="1 or more", found=str(value), todo=f"leave {option} out or raise it")
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
    if precision not in FULL_NAMES:
        known = ", ".join(FULL_NAMES)
        raise InputError("--precision", expected=known, found=repr(precision), todo="name one of them, or none")
    lacking = sorted(NO_BF16.intersection(compute_capabilities)) if precision == "bf16" else []
    if lacking:
        raise InputError(
            "--precision",
            expected=f"fp16 or fp32 for {', '.join(lacking)}",
            found="bf16, which that hardware lacks",
            todo="use --precision fp16 or leave that target out",
        )
