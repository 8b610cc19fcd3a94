"""The MLP layer: down(relu(up x)²)."""

from __future__ import annotations

from typing import Final

from elastic_export.layers.axis import Axis, extent
from elastic_export.layers.kind import HIDDEN, LayerKind, Mask, Tensor

FFN: Final = Axis("ffn_sizes", ("intermediate_size",), elastic=True, per_layer=True)

MLP: Final = LayerKind(
    letter="-",
    noun="an MLP",
    called="MLP",
    types=("mlp",),
    axes=(FFN,),
    tensors=(
        Tensor("up_proj.weight", (extent(FFN), extent(HIDDEN))),
        Tensor("down_proj.weight", (extent(HIDDEN), extent(FFN))),
    ),
    masks=(Mask("ffn", extent(FFN)),),
)
