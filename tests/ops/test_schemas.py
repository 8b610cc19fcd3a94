"""The schemas of the parent's ops follow the contract, and are there while the exporter runs."""

from __future__ import annotations

import onnx
import pytest

from elastic_export.ops.all_ops import OPS
from elastic_export.ops.contract import load_contract
from elastic_export.ops.schemas import registered
from elastic_export.trace.translations import translations


def test_the_masked_mixer_is_the_contract_and_a_mask() -> None:
    with registered(OPS):
        schema, contract = onnx.defs.get_schema("MaskedMamba2Mixer", 1, "elastic"), load_contract("mamba2_mixer")
    assert [i.name for i in schema.inputs] == [*(operand.name for operand in contract.inputs), "channel_mask"]
    assert [o.name for o in schema.outputs] == [operand.name for operand in contract.outputs]
    assert sorted(schema.attributes) == sorted(contract.attributes)
    integers = {i.name for i in schema.inputs if i.type_str == "tensor(int64)"}
    assert integers == {operand.name for operand in contract.inputs if operand.dtype == "int64"}


def test_onnx_forgets_them_again_whatever_happens() -> None:
    with registered(OPS), registered(OPS):
        assert all(onnx.defs.has(op.name, "elastic") for op in OPS)
    with pytest.raises(ZeroDivisionError), registered(OPS):
        raise ZeroDivisionError
    assert not any(onnx.defs.has(op.name, "elastic") for op in OPS)


def test_every_op_has_a_translation() -> None:
    assert len(translations()) == len(translations()) == len(OPS) + 1  # and the linear layer
