"""`elastic::MaskedMamba2Mixer` and the op that ships, `elastic::Mamba2Mixer`: its contract with one input more."""

from __future__ import annotations

from typing import Final

from elastic_export.layers.architecture import Architecture
from elastic_export.layers.mamba2 import MAMBA2
from elastic_export.ops.contract import load_contract
from elastic_export.ops.op import DOMAIN, Op, Shipped

_FOLDER = "mamba2_mixer"
_CONTRACT = load_contract(_FOLDER)


def _expected(arch: Architecture) -> dict[str, float]:
    minimum, maximum = arch.time_step_limit
    return {
        "n_groups": arch.ssm_groups,
        "head_dim": arch.mamba_head_dim,
        "state_size": arch.ssm_state,
        "epsilon": arch.epsilon,
        "time_step_min": minimum,
        "time_step_max": maximum,
    }


MAMBA2_MIXER: Final = Op(
    name=f"Masked{_CONTRACT.name}",
    folder=_FOLDER,
    inputs=(*(operand.name for operand in _CONTRACT.inputs), "channel_mask"),
    outputs=tuple(operand.name for operand in _CONTRACT.outputs),
    attributes=_CONTRACT.attributes,
    integers=frozenset(operand.name for operand in _CONTRACT.inputs if operand.dtype == "int64"),
    mask="channel_mask",
    per_layer={MAMBA2: 1},
    shipped=Shipped(DOMAIN, _CONTRACT.name, defaults=_CONTRACT.defaults),
    expected=_expected,
    plugin=f"{__name__}.creator:create",
    plugin_sizes=lambda arch: {
        "N": ("state size", arch.ssm_state),
        "P": ("Mamba head size", arch.mamba_head_dim),
        "K": ("convolution width", arch.conv_kernel),
    },
)
