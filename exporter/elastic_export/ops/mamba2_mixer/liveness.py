"""How liveness passes through `elastic::MaskedMamba2Mixer`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from elastic_export.graph.lattices import Liveness, known
from elastic_export.graph.rule import Rule
from elastic_export.graph.values import int_attribute, node_error, set_ints, static_shape
from elastic_export.ops.mamba2_mixer import MAMBA2_MIXER


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

    Why that is exact (equations.py): y is the gated norm of s·silu(z), s the scan's output. silu(0) = 0, so a channel
    with z = 0 is 0 whatever its state is, and a channel whose mask is 0 is multiplied by it. The scan of head h reads
    x, dt, A, D of that head and B, C of its group, nothing of another head; so a head whose channels nobody needs may
    go with its states, although these are not zero (the conv bias and softplus(dt_bias) keep them from it). What ties
    channels together is the norm: its mean runs over the unmasked channels of a group, so each of those is needed as
    soon as the node is.
    """

    def zeros(self, node: ir.Node, live: Liveness) -> None:
        """y is zero where z, the first di rows of `projected`, or the mask is."""
        projected, mask = live.zero(_input(node, "projected")), known(live.zero(_mask(node))[0])
        z = known(projected[2])[: mask.size]
        live.set_zero(node.outputs[0], [projected[0], projected[1], z | mask])

    def needs(self, node: ir.Node, live: Liveness) -> None:
        """Unmasked channels are needed: each counts in its group's norm. Whole heads times whole positions stay, for an
        op can express no other block of them.
        """
        kept = self._kept(node, live)
        for value, axes in self._cut_axes(node, kept):
            for axis in range(len(static_shape(value))):
                have = live.need(value)[axis]
                if have is not None:  # an axis that no budget cuts: taps, state size
                    live.require(value, axis, axes.get(axis, np.ones_like(have)))
        live.require_all(_input(node, "length"))

    @staticmethod
    def _cut_axes(node: ir.Node, kept: _Kept) -> list[tuple[ir.Value, dict[int, np.ndarray]]]:
        """What stays of each operand, by axis; all of the axes that are not named."""
        y, conv_state, ssm_state = node.outputs
        heads, channels = {0: kept.heads}, {0: kept.channels}
        return [
            (_input(node, "projected"), {2: kept.projected}),
            (_input(node, "conv_weight"), {0: kept.conv}),
            (_input(node, "conv_bias"), {0: kept.conv}),
            (_input(node, "A_log"), heads),
            (_input(node, "D"), heads),
            (_input(node, "dt_bias"), heads),
            (_input(node, "norm_weight"), channels),
            (_input(node, "conv_state"), {2: kept.conv}),
            (_input(node, "ssm_state"), {1: kept.heads, 2: kept.inside}),
            (_mask(node), channels),
            (y, {2: kept.channels}),
            (conv_state, {2: kept.conv}),
            (ssm_state, {1: kept.heads, 2: kept.inside}),
        ]

    def cut(self, node: ir.Node, live: Liveness) -> None:
        """Heads must stay in equal numbers in every group, for head h reads group ⌊h/(H/G)⌋ of what stays; and exactly
        heads times positions must be asked for.
        """
        kept, groups = self._kept(node, live), int_attribute(node, "n_groups")
        per_group = kept.heads.reshape(groups, -1).sum(axis=1)
        if len(set(per_group.tolist())) != 1:
            raise node_error(
                node, expected="the same number of heads in every SSM group", found=f"{per_group.tolist()}"
            )
        asked = known(live.need(_input(node, "projected"))[2])
        if not np.array_equal(asked, kept.projected):
            raise node_error(
                node,
                expected="rows of whole heads, and of the same positions in every head",
                found=f"{int(asked.sum())} rows needed where such a block has {int(kept.projected.sum())}",
            )
        set_ints(node, head_dim=int(kept.inside.sum()))

    @staticmethod
    def _kept(node: ir.Node, live: Liveness) -> _Kept:
        mask, y = _mask(node), node.outputs[0]
        # A channel stays for any of three askers: the norm, whose mean counts every unmasked one; y's
        # readers; and the mask's other readers, for what of it stays is one decision.
        channels = ~known(live.zero(mask)[0]) | known(live.need(y)[2]) | known(live.need(mask)[0])
        block = channels.reshape(-1, int_attribute(node, "head_dim"))
        shared = 2 * int_attribute(node, "n_groups") * int_attribute(node, "state_size")
        return _Kept(block.any(axis=1), block.any(axis=0), shared)


def _input(node: ir.Node, name: str) -> ir.Value:
    """The operand that the contract calls so."""
    return MAMBA2_MIXER.operand(node, name)


def _mask(node: ir.Node) -> ir.Value:
    assert MAMBA2_MIXER.mask is not None
    return _input(node, MAMBA2_MIXER.mask)


RULE = MaskedMamba2Mixer()
