"""Liveness rules of the ops of domain `elastic`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from elastic_export.passes.base import node_error
from elastic_export.passes.narrow.liveness import Axis, Liveness
from elastic_export.passes.narrow.rule import REGISTRY, Rule
from elastic_export.passes.values import int_attribute, operand, set_ints, static_shape


def _all_of(axis: Axis) -> np.ndarray:
    assert axis is not None
    return np.ones_like(axis)


def _known(axis: Axis) -> np.ndarray:
    assert axis is not None
    return axis


class MaskedRMSNorm(Rule):
    """x [..., d], weight [d], mask [d]: a masked channel is zero and does not count; every unmasked one counts."""

    def zeros(self, node: ir.Node, live: Liveness) -> None:
        """Zero in x, weight or mask is zero in y."""
        x, weight, mask = (live.zero(operand(node, i)) for i in range(3))
        live.set_zero(node.outputs[0], [*x[:-1], _known(x[-1]) | _known(weight[0]) | _known(mask[0])])

    def needs(self, node: ir.Node, live: Liveness) -> None:
        """The unmasked channels (they are counted, zero or not) and whatever y needs, alike in all operands."""
        x, weight, mask = (operand(node, i) for i in range(3))
        y, last = node.outputs[0], len(static_shape(x)) - 1
        live.require(mask, 0, ~_known(live.zero(mask)[0]))
        for value, axis in ((x, last), (weight, 0), (y, last)):
            live.reach(value)
            live.tie(mask, 0, value, axis)
        for axis in range(last):
            live.tie(x, axis, y, axis)


class LastToken(Rule):
    """x [B, T, d] and length [B] -> [B, d]: channels pass through."""

    def zeros(self, node: ir.Node, live: Liveness) -> None:
        """Those of the channels."""
        known = live.zero(operand(node, 0))
        live.set_zero(node.outputs[0], [known[0], known[2]])

    def needs(self, node: ir.Node, live: Liveness) -> None:
        """What the row needs."""
        live.reach(operand(node, 0))
        live.require_all(operand(node, 1))
        live.tie(operand(node, 0), 2, node.outputs[0], 1)


class CachedAttention(Rule):
    """Query heads may go, the same number in each KV group; keys, values and caches stay whole."""

    def needs(self, node: ir.Node, live: Liveness) -> None:
        """A head is needed with all its channels as soon as one of them is."""
        query, y = operand(node, 0), node.outputs[0]
        channels = np.repeat(self._heads(node, live).any(axis=1), self._head_dim(node))
        for value in (query, y):
            live.require(value, 2, channels)
        for index in range(1, 6):
            live.require_all(operand(node, index))
        for output in node.outputs[1:]:
            live.require_all(output)

    def cut(self, node: ir.Node, live: Liveness) -> None:
        """The grouping ⌊h/(q/kv)⌋ survives only where every KV group keeps as many heads."""
        kv = static_shape(operand(node, 3))[1]
        assert kv is not None
        per_group = self._heads(node, live).any(axis=1).reshape(kv, -1).sum(axis=1)
        if len(set(per_group.tolist())) != 1:
            raise node_error(
                node, expected="the same number of query heads in every KV group", found=f"{per_group.tolist()}"
            )

    @staticmethod
    def _head_dim(node: ir.Node) -> int:
        size = static_shape(operand(node, 3))[3]
        assert size is not None
        return size

    def _heads(self, node: ir.Node, live: Liveness) -> np.ndarray:
        """Needed channels as [heads, head dim]."""
        need = _known(live.need(node.outputs[0])[2]) | _known(live.need(operand(node, 0))[2])
        heads: np.ndarray = need.reshape(-1, self._head_dim(node))
        return heads


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
        projected, mask = live.zero(operand(node, 0)), _known(live.zero(operand(node, 10))[0])
        z = _known(projected[2])[: mask.size]
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
            live.require(value, axis, _all_of(live.need(value)[axis]))

    def cut(self, node: ir.Node, live: Liveness) -> None:
        """Heads must stay in equal numbers in every group, and exactly heads times positions must be asked for."""
        kept, groups = self._kept(node, live), int_attribute(node, "n_groups")
        per_group = kept.heads.reshape(groups, -1).sum(axis=1)
        if len(set(per_group.tolist())) != 1:
            raise node_error(
                node, expected="the same number of heads in every SSM group", found=f"{per_group.tolist()}"
            )
        asked = _known(live.need(operand(node, 0))[2])
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
        channels = ~_known(live.zero(mask)[0]) | _known(live.need(y)[2]) | _known(live.need(mask)[0])
        block = channels.reshape(-1, int_attribute(node, "head_dim"))
        shared = 2 * int_attribute(node, "n_groups") * int_attribute(node, "state_size")
        return _Kept(block.any(axis=1), block.any(axis=0), shared)


REGISTRY |= {
    ("elastic", "MaskedRMSNorm"): MaskedRMSNorm(),
    ("elastic", "LastToken"): LastToken(),
    ("elastic", "CachedAttention"): CachedAttention(),
    ("elastic", "MaskedMamba2Mixer"): MaskedMamba2Mixer(),
}
