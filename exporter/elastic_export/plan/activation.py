"""How much scratch memory an engine will take, and how much a good graph may take: one above the bound is refused."""

from __future__ import annotations

from dataclasses import dataclass

from elastic_export.layers.architecture import Architecture
from elastic_export.layers.attention import ATTENTION
from elastic_export.ops.cached_attention import CACHED_ATTENTION
from elastic_export.ops.cached_attention.creator import workspace_bytes
from elastic_export.ops.plugins import plugin_ops
from elastic_export.products import TENSORRT_RTX, Product
from elastic_runtime.format.budget_size import Activation
from elastic_runtime.format.interface import OpsMode, Precision
from elastic_runtime.format.safetensors import itemsize

#: Workspace of the matrix products, which any graph is granted: 8 or 25 MB are seen.
_WORKSPACE = 32_000_000
#: The least that it is, and with it the plugin's scratch memory, which takes turns with it.
_PRODUCTS = 25_000_000
#: Above the estimate, which is close: the builder packs tensors as it likes.
_MARGIN = 10_000_000


@dataclass(frozen=True)
class AttentionShape:
    """Attention in standard ops of a model whose engine is estimated; `fused` where the builder has a kernel for it,
    `itemsize` of its caches in bytes.
    """

    query_heads: int
    kv_heads: int
    head_dim: int
    itemsize: int
    fused: bool

    def scratch(self, max_tokens: int) -> int:
        """Bytes per row of a cache that one layer takes in prefill; the layers take turns.

        Fused: keys and values expanded to all query heads, and the mask. Explicit: the scores twice in float32, the
        keys transposed and, where the caches are narrow, both of them in float32.
        """
        if self.fused:
            return 2 * self.query_heads * self.head_dim * self.itemsize + 2 * max_tokens
        copies = 1 if self.itemsize == 4 else 3
        return 8 * self.query_heads * max_tokens + 4 * copies * self.kv_heads * self.head_dim


def estimate_activation(
    widest: int,
    *,
    max_tokens: int,
    max_batch: int = 1,
    attention: AttentionShape | None = None,
    plugin: int | None = None,
    mixer: int = 0,
    logits: int = 0,
) -> Activation:
    """Activation memory of the larger profile before there is an engine to ask.

    25 MB, three float32 copies of the widest intermediate, and what attention takes for each row of the cache: the 12B
    (widest 22656, 40 query heads of 128) gives 267 MB at a context of 8192 and 439 MB at 16384 for 256 tokens, where
    its TensorRT-RTX build logs 246 and 418 MB with native mixers.

    An attention plugin takes the same whatever the context is, and what flows past it is nine bytes a channel: 77 MB
    for 256 tokens of the 12B and 234 MB for 1024, where builds log 56 and 197 MB.

    Args:
        widest: channels of the widest tensor between two layers, normally a Mamba layer's in_proj rows or an FFN.
        max_tokens: tokens of a call.
        max_batch: sequences of a call.
        attention: of its attention layers in standard ops; None without any.
        plugin: bytes of scratch memory of its attention plugin; None without one.
        mixer: bytes that a Mamba layer takes besides; attention, with which it takes turns, may take as much.
        logits: bytes that the logits of every token take besides.
    """
    per_row = 0 if attention is None else attention.scratch(max_tokens)
    products, copies = max(_PRODUCTS, plugin or 0), 12 if plugin is None else 9
    rows = products + copies * widest * max_tokens * max_batch + logits
    return Activation(rows, per_context_token=per_row * max_batch, least=rows + mixer)


def estimated_activation(
    arch: Architecture,
    precision: Precision,
    *,
    max_tokens: int,
    max_batch: int = 1,
    ops: OpsMode = "plugin",
    every_token: bool = False,
    product: Product = TENSORRT_RTX,
) -> Activation:
    """What an engine of that model will take, before it is built: scratch, and the buffer of every token's logits."""
    sizes = {"max_tokens": max_tokens, "max_batch": max_batch}
    mixer = 0
    if ops == "native":  # half the states, which is as many as the builder's logs show
        mixer = _native_products(arch, **sizes) + _native_states(arch, **sizes) // 2
    logits = logits_buffer(arch, **sizes) if every_token else 0
    if every_token and precision != "fp32":  # else they are written where they stay
        logits += _logits_scratch(arch, precision, **sizes)
    return estimate_activation(
        _widest(arch),
        attention=_attention(arch, precision, ops, product),
        plugin=_plugin(arch, precision, ops),
        mixer=mixer,
        logits=logits,
        **sizes,
    )


def logits_buffer(arch: Architecture, *, max_tokens: int, max_batch: int) -> int:
    """Bytes of the output [B, T, V] in float32 that a session allocates for the logits of every token.

    An engine's own figure does not hold it: outputs are no scratch. Those of the last token are lost in the reserve.
    """
    return 4 * max_batch * max_tokens * arch.vocab_size


def activation_bounds(
    arch: Architecture,
    precision: Precision,
    ops: OpsMode,
    *,
    max_tokens: int,
    max_context: int,
    max_batch: int,
    every_token: bool = False,
    product: Product = TENSORRT_RTX,
) -> tuple[int, int]:
    """Upper bounds on the builder's "Total Activation Memory" of decode and of prefill, bytes.

    Tight enough to tell: a matrix that the builder copies, because the graph asks for its transpose, breaks both. For
    the 12B that is 232 MB of an in_proj on top of 25 MB in decode.
    """
    sizes = {"max_context": max_context, "max_batch": max_batch}
    attention = _attention(arch, precision, ops, product)
    decode = max(_WORKSPACE, _MARGIN + (_plugin(arch, precision, ops) or 0)) + _decode(arch, attention, ops, **sizes)
    prefill = _prefill(arch, precision, ops, product, max_tokens=max_tokens, **sizes)
    if every_token:
        prefill += _logits_scratch(arch, precision, max_tokens=max_tokens, max_batch=max_batch)
    return decode, max(decode, prefill)


def size_bound(arch: Architecture, compute_capabilities: int, max_batch: int) -> int:
    """Upper bound on the bytes of an engine whose weights are inputs: code, and constants that are no weights.

    64 MB for the 12B and one GPU class, whose plugin engine has 41; kernels for a batch are further ones.
    """
    per_layer = 700_000 if max_batch == 1 else 1_000_000
    return compute_capabilities * (20_600_000 + per_layer * len(arch.pattern))


def _decode(
    arch: Architecture, attention: AttentionShape | None, ops: OpsMode, *, max_context: int, max_batch: int
) -> int:
    """Beside workspaces: vectors, a few states, and where attention is explicit its caches and scores in float32; no
    expanded caches.
    """
    row = 100 * _widest(arch) + (3 * _state_bytes(arch) if ops == "native" else 0)
    if attention is not None and not attention.fused:
        row += max_context * 4 * (3 * arch.kv_heads * arch.attention_head_dim + 4 * arch.attention_heads)
    return max_batch * row


def _prefill(
    arch: Architecture,
    precision: Precision,
    ops: OpsMode,
    product: Product,
    *,
    max_tokens: int,
    max_context: int,
    max_batch: int,
) -> int:
    """A tenth above the estimate but for mixers; a native one's states and products within its chunks besides."""
    sizes = {"max_tokens": max_tokens, "max_batch": max_batch}
    estimate = estimate_activation(
        _widest(arch),
        max_tokens=max_tokens,
        max_batch=max_batch,
        attention=_attention(arch, precision, ops, product),
        plugin=_plugin(arch, precision, ops),
    )
    expected = estimate.at(max_context)
    bound = _MARGIN + expected + expected // 10
    if ops == "native":
        bound += _native_products(arch, **sizes) + _native_states(arch, **sizes)
    return bound


def _native_products(arch: Architecture, *, max_tokens: int, max_batch: int) -> int:
    """Two chunk x chunk matrices and four of B or C with their decays, in float32 and for each head.

    They outgrow the rows of in_proj where heads are many and small.
    """
    heads = max(arch.mamba_heads, default=0)
    return max_batch * max_tokens * 4 * heads * (2 * 64 + 4 * arch.ssm_state)


def _native_states(arch: Architecture, *, max_tokens: int, max_batch: int) -> int:
    """A state for each chunk, and the one before."""
    return max_batch * (-(-max_tokens // 64) + 1) * _state_bytes(arch)


def _logits_scratch(arch: Architecture, precision: Precision, *, max_tokens: int, max_batch: int) -> int:
    """The logits of every token before they become float32."""
    return itemsize(precision) * max_batch * max_tokens * arch.vocab_size


def _widest(arch: Architecture) -> int:
    """Channels of the widest tensor between two layers."""
    masked = (arch.size(mask.axis, ordinal) for kind, ordinal, _ in arch.alike() for mask in kind.masks)
    return max((*masked, arch.hidden_size))


def _state_bytes(arch: Architecture) -> int:
    """SSM state of the largest Mamba layer, of one sequence."""
    return max((4 * heads * arch.mamba_head_dim * arch.ssm_state for heads in arch.mamba_heads), default=0)


def _attention(arch: Architecture, precision: Precision, ops: OpsMode, product: Product) -> AttentionShape | None:
    if not arch.count(ATTENTION) or _attends_by_plugin(arch, precision, ops):
        return None
    fused = product.fuses_attention(precision, arch.attention_heads, arch.attention_head_dim)
    return AttentionShape(arch.attention_heads, arch.kv_heads, arch.attention_head_dim, itemsize(precision), fused)


def _plugin(arch: Architecture, precision: Precision, ops: OpsMode) -> int | None:
    """Scratch memory of the attention plugin; None where there is none."""
    if not _attends_by_plugin(arch, precision, ops):
        return None
    return workspace_bytes({"H": arch.attention_heads, "G": arch.kv_heads, "D": arch.attention_head_dim})


def _attends_by_plugin(arch: Architecture, precision: Precision, ops: OpsMode) -> bool:
    return ops == "plugin" and CACHED_ATTENTION in plugin_ops(arch, precision)
