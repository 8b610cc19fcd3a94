"""`elastic::MaskedMamba2Mixer` as PyTorch sees it; the mathematics stand in `equations.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from elastic_export.ops.mamba2_mixer.equations import MixerParameters, MixerSizes, mamba2_mixer
from elastic_export.ops.schemas import opset


@torch.library.custom_op("elastic::masked_mamba2_mixer", mutates_args=())
def masked_mamba2_mixer(
    projected: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    norm_weight: Tensor,
    length: Tensor,
    conv_state: Tensor,
    ssm_state: Tensor,
    channel_mask: Tensor,
    n_groups: int,
    head_dim: int,
    state_size: int,
    epsilon: float,
    time_step_min: float,
    time_step_max: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """`elastic::Mamba2Mixer` with one input more: channel_mask [di]. Shapes and meaning in its contract."""
    sizes = MixerSizes(n_groups, head_dim, state_size, epsilon, time_step_min, time_step_max)
    parameters = MixerParameters(conv_weight, conv_bias, A_log, D, dt_bias, norm_weight)
    return mamba2_mixer(projected, parameters, channel_mask, length, conv_state, ssm_state, sizes)


@masked_mamba2_mixer.register_fake
def _(projected, conv_weight, conv_bias, A_log, D, dt_bias, norm_weight, length, conv_state, ssm_state, *_args, **_kw):  # type: ignore[no-untyped-def]
    y = projected.new_empty((projected.shape[0], projected.shape[1], norm_weight.shape[0]))
    return y, torch.empty_like(conv_state), torch.empty_like(ssm_state)


def translation() -> tuple[Any, Any]:
    """The PyTorch op and the function that records its node."""

    # fmt: off
    def record(  # type: ignore[no-untyped-def]
        projected, conv_weight, conv_bias, A_log, D, dt_bias, norm_weight, length, conv_state, ssm_state, channel_mask,
        n_groups: int, head_dim: int, state_size: int, epsilon: float, time_step_min: float, time_step_max: float,
    ):
        return opset().MaskedMamba2Mixer(
            projected, conv_weight, conv_bias, A_log, D, dt_bias, norm_weight, length, conv_state, ssm_state,
            channel_mask, n_groups=n_groups, head_dim=head_dim, state_size=state_size, epsilon=epsilon,
            time_step_min=time_step_min, time_step_max=time_step_max,
        )
    # fmt: on

    return torch.ops.elastic.masked_mamba2_mixer.default, record
