"""The table of layer kinds. Whoever needs to know something of a kind asks here; no other file tells letters apart.

A kind more is one file beside `mlp.py`, its line here, its fields in `Architecture` and `Budget` where it has widths of
its own, and its forward in `reference/mixers.py` (exporter/README.md walks through it).
"""

from __future__ import annotations

from typing import Final

from elastic_export.layers.attention import ATTENTION
from elastic_export.layers.axis import Axis
from elastic_export.layers.kind import HIDDEN, VOCAB, LayerKind, State
from elastic_export.layers.mamba2 import MAMBA2
from elastic_export.layers.mlp import MLP

#: In the order in which budget files, errors and interfaces list what belongs to them.
KINDS: Final[tuple[LayerKind, ...]] = (MLP, MAMBA2, ATTENTION)
KIND_OF: Final = {kind.letter: kind for kind in KINDS}
#: Every width of a model.
AXES: Final[tuple[Axis, ...]] = (VOCAB, HIDDEN, *(axis for kind in KINDS for axis in kind.axes))
ELASTIC_AXES: Final = tuple(axis for axis in AXES if axis.elastic)
#: Layer kind by axis, for the widths that belong to one.
KIND_OF_AXIS: Final = {axis: kind for kind in KINDS for axis in kind.axes}
STATES: Final[dict[str, tuple[LayerKind, State]]] = {
    state.kind: (kind, state) for kind in KINDS for state in kind.states
}
