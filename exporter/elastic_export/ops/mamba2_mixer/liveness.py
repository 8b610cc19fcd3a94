"""How liveness passes through `elastic::MaskedMamba2Mixer`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from elastic_export.graph.liveness import Liveness, all_of, known
from elastic_export.graph.rule import Rule
from elastic_export.graph.values import int_attribute, node_error, operand, set_ints


@dataclass(frozen=True)
class _Kept:
    """What a mixer keeps: heads [H] and positions inside a head [P]."""

    heads: np.ndarray
    inside: np.ndarray
    shared: int  # rows B | C

    @property
    def channels(self) -> np.ndarray:
        channels: np.ndarray = np.outer(self.heads, self.inside).reshape(-1)
        return channels

    @property
    def conv(self) -> np.ndarray:
        return np.concatenate([self.channels, np.ones(self.shared, bool)])

    @property
    def projected(self) -> np.ndarray:
        return np.concatenate([self.channels, self.conv, self.heads])


class MaskedMamba2Mixer(Rule):
    """z = 0 makes y = 0, and a head needs itself and its group's B and C only.

    Operands by position, as in the contract: projected (z | x | B | C | dt), conv weight and bias, A_log, D, dt_bias,
    norm weight, length, conv state, SSM state, channel mask.
    """

    def zeros(self, node: ir.Node, live: Liveness) -> None:
        """y is zero where z or the mask is."""
        projected, mask = live.zero(operand(node, 0)), known(live.zero(operand(node, 10))[0])
        z = known(projected[2])[: mask.size]
        live.set_zero(node.outputs[0], [projected[0], projected[1], z | mask])

    def needs(self, node: ir.Node, live: Liveness) -> None:
        """Unmasked channels are needed: each counts in its group's norm. Whole heads times whole positions stay."""
        kept = self._kept(node, live)
        heads, inside = kept.heads, kept.inside
        for index, axis, channels in (
            (0, 2, kept.projected),
            (1, 0, kept.conv),
            (2, 0, kept.conv),
            (3, 0, heads),
            (4, 0, heads),
            (5, 0, heads),
            (6, 0, kept.channels),
            (8, 2, kept.conv),
            (9, 1, heads),
            (9, 2, inside),
            (10, 0, kept.channels),
        ):
            live.require(operand(node, index), axis, channels)
        self._require_uncut_axes(node, live)
        y, conv_state, ssm_state = node.outputs
        for value, axis, channels in ((y, 2, kept.channels), (conv_state, 2, kept.conv), (ssm_state, 1, heads)):
            live.require(value, axis, channels)
        live.require(ssm_state, 2, inside)

    @staticmethod
    def _require_uncut_axes(node: ir.Node, live: Liveness) -> None:
        live.require_all(operand(node, 7))
        conv_state, ssm_state = node.outputs[1:]
        for value, axis in (
            (operand(node, 1), 1),
            (operand(node, 1), 2),
            (operand(node, 8), 1),
            (operand(node, 9), 3),
            (conv_state, 1),
            (ssm_state, 3),
        ):
            live.require(value, axis, all_of(live.need(value)[axis]))

    def cut(self, node: ir.Node, live: Liveness) -> None:
        """Heads must stay in equal numbers in every group, and exactly heads times positions must be asked for."""
        kept, groups = self._kept(node, live), int_attribute(node, "n_groups")
        per_group = kept.heads.reshape(groups, -1).sum(axis=1)
        if len(set(per_group.tolist())) != 1:
            raise node_error(
                node, expected="the same number of heads in every SSM group", found=f"{per_group.tolist()}"
            )
        asked = known(live.need(operand(node, 0))[2])
        if not np.array_equal(asked, kept.projected):
            raise node_error(
                node,
                expected="rows of whole heads, and of the same positions in every head",
                found=f"{int(asked.sum())} rows needed where such a block has {int(kept.projected.sum())}",
            )
        set_ints(node, head_dim=int(kept.inside.sum()))

    @staticmethod
    def _kept(node: ir.Node, live: Liveness) -> _Kept:
        mask, y = operand(node, 10), node.outputs[0]
        channels = ~known(live.zero(mask)[0]) | known(live.need(y)[2]) | known(live.need(mask)[0])
        block = channels.reshape(-1, int_attribute(node, "head_dim"))
        shared = 2 * int_attribute(node, "n_groups") * int_attribute(node, "state_size")
        return _Kept(block.any(axis=1), block.any(axis=0), shared)


RULE = MaskedMamba2Mixer()
