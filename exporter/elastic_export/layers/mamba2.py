"""The Mamba-2 layer: in_proj, `elastic::Mamba2Mixer`, out_proj (arXiv 2405.21060; Nemotron-H, arXiv 2504.03624).

Symbols: H heads, P head dim, G groups, N state, K convolution width, di = H·P, dc = di + 2·G·N.
"""

from __future__ import annotations

from typing import Final

from elastic_export.layers.axis import Axis, Less, One, Span, extent
from elastic_export.layers.kind import HIDDEN, LayerKind, Mask, State, Tensor

GROUPS: Final = Axis("ssm_groups", ("n_groups", "mamba_n_groups"), called="SSM groups")
#: Grouped: head h reads B and C of group ⌊h/(H/G)⌋, so each group keeps its first heads.
HEADS: Final = Axis("mamba_heads", ("mamba_num_heads",), elastic=True, per_layer=True, groups=GROUPS)
HEAD_DIM: Final = Axis("mamba_head_dim", ("mamba_head_dim",), elastic=True)
STATE: Final = Axis("ssm_state", ("ssm_state_size",))
TAPS: Final = Axis(
    "conv_kernel",
    ("conv_kernel", "mamba_d_conv"),
    least=(2, "a convolution of one tap has no state and is not supported"),
)

_CHANNELS: Final[Span] = (HEADS, HEAD_DIM)
_B: Final[Span] = (GROUPS, STATE)  # and C; neither is ever cut, for every head of the group reads all of it

#: di: the channels of z, of x and of y.
INNER: Final = (_CHANNELS,)
#: dc: x | B | C, what the convolution runs over.
CONV: Final = (_CHANNELS, _B, _B)
#: 2di + 2GN + H: z | x | B | C | dt, the rows of in_proj.
PROJECTED: Final = (_CHANNELS, *CONV, (HEADS,))
#: One number a head.
PER_HEAD: Final = extent(HEADS)

MAMBA2: Final = LayerKind(
    letter="M",
    noun="a Mamba-2 layer",
    called="Mamba",
    types=("mamba", "linear_attention"),
    axes=(HEADS, HEAD_DIM, GROUPS, STATE, TAPS),
    tensors=(
        Tensor("in_proj.weight", (PROJECTED, extent(HIDDEN))),
        Tensor("conv1d.weight", (CONV, extent(One()), extent(TAPS)), "conv_weight"),
        Tensor("conv1d.bias", (CONV,), "conv_bias"),
        Tensor("A_log", (PER_HEAD,), "A_log"),
        Tensor("D", (PER_HEAD,), "D"),
        Tensor("dt_bias", (PER_HEAD,), "dt_bias"),
        Tensor("norm.weight", (INNER,), "norm_weight"),
        Tensor("out_proj.weight", (extent(HIDDEN), INNER)),
    ),
    # z = 0 makes y = 0, so the first mask switches a channel off; the second keeps it out of its group's mean.
    masks=(Mask("projected", PROJECTED), Mask("channels", INNER)),
    states=(
        State("conv_state", (extent(Less(TAPS, 1)), CONV)),
        State("ssm_state", (PER_HEAD, extent(HEAD_DIM), extent(STATE)), wide=True),
    ),
)
