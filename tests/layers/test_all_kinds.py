"""The table of layer kinds: complete, without contradictions, and of the published models' sizes."""

from __future__ import annotations

import dataclasses

import pytest

from elastic_export.layers.all_kinds import AXES, ELASTIC_AXES, KIND_OF_AXIS, KINDS, STATES
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.reference.mixers import MIXERS
from elastic_runtime.format.interface import ALIAS_RULES
from elastic_runtime.format.manifest import Widths


def test_letters_types_keys_and_tensors_are_of_one_kind_each() -> None:
    for names in (
        [kind.letter for kind in KINDS],
        [name for kind in KINDS for name in kind.types],
        [name for axis in AXES for name in axis.names],
        [axis.field for axis in AXES],
        [state.kind for kind in KINDS for state in kind.states],
        [mask.name for kind in KINDS for mask in kind.masks],
    ):
        assert len(set(names)) == len(names)


def test_every_axis_is_a_field_of_architecture_and_manifest_and_every_elastic_one_of_the_budget() -> None:
    fields = {field.name for field in dataclasses.fields(Architecture)}
    assert {axis.field for axis in AXES} | {"pattern", "epsilon", "time_step_limit"} == fields
    fields = {field.name for field in dataclasses.fields(Budget)}
    assert {axis.field for axis in ELASTIC_AXES} | {"name", "skip_layers"} == fields
    assert {axis.field for axis in AXES} == {field.name for field in dataclasses.fields(Widths)}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.called)
def test_a_kind_is_whole(kind: object) -> None:
    """It has mathematics, a mask for each of its elastic axes, and its axes appear in its tensors."""
    assert kind in MIXERS
    found = next(k for k in KINDS if k is kind)
    masked = {factor for mask in found.masks for span in mask.axis for factor in span}
    assert set(found.elastic_axes) <= masked
    used = {f for tensor in found.tensors for axis in tensor.axes for span in axis for f in span}
    assert set(found.axes) <= used | {axis.groups for axis in found.axes}
    assert all(axis is not None and KIND_OF_AXIS[axis] is found for axis in found.axes)


def test_every_state_has_an_alias_rule() -> None:
    assert set(STATES) == set(ALIAS_RULES)
