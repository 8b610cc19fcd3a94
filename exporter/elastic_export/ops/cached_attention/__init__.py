"""`elastic::CachedAttention`: causal grouped-query attention over caches that are written in place."""

from __future__ import annotations

import math
from typing import Any, Final

from elastic_export.layers.architecture import Architecture
from elastic_export.layers.attention import ATTENTION
from elastic_export.ops.contract import load_contract
from elastic_export.ops.op import DOMAIN, Op, Shipped
from elastic_export.products import Product

_FOLDER = "cached_attention"
_CONTRACT = load_contract(_FOLDER)


def _expected(arch: Architecture) -> dict[str, float]:
    return {
        "num_heads": arch.attention_heads,
        "num_key_value_heads": arch.kv_heads,
        "head_dim": arch.attention_head_dim,
        "scale": 1 / math.sqrt(arch.attention_head_dim),
    }


def _form(arch: Architecture, precision: str, product: Product) -> dict[str, Any]:
    return {"fused": product.fuses_attention(precision, arch.attention_heads, arch.attention_head_dim)}


CACHED_ATTENTION: Final = Op(
    name=_CONTRACT.name,
    folder=_FOLDER,
    inputs=tuple(operand.name for operand in _CONTRACT.inputs),
    outputs=tuple(operand.name for operand in _CONTRACT.outputs),
    attributes=_CONTRACT.attributes,
    integers=frozenset(operand.name for operand in _CONTRACT.inputs if operand.dtype == "int64"),
    per_layer={ATTENTION: 1},
    shipped=Shipped(DOMAIN, _CONTRACT.name),
    expected=_expected,
    form=_form,
    plugin=f"{__name__}.creator:create",
    plugin_sizes=lambda arch: {
        "G": ("number of KV heads", arch.kv_heads),
        "D": ("attention head size", arch.attention_head_dim),
    },
    plugin_steps={"D": "kHeadDimStep"},
    inlines=True,
)
