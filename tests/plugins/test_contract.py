"""Contract, C headers, ctypes structs and reference say the same."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from mamba2_mixer import library
from mamba2_mixer.testing.cases import CONTRACT, EPSILON, Case, expected, make_data

MIXER = Path(__file__).parents[2] / "plugins" / "mamba2_mixer"


def header(name: str) -> str:
    return (MIXER / name).read_text()


@pytest.mark.parametrize(
    ("struct", "file", "mirror"),
    [
        ("ElasticMamba2Shape", "params.h", library.Shape),
        ("ElasticMamba2Args", "params.h", library.Args),
        ("ElasticMamba2Requirements", "elastic_mamba2.h", library.Requirements),
    ],
)
def test_ctypes_structs_follow_the_headers(struct: str, file: str, mirror: type) -> None:
    found = re.search(rf"typedef struct {struct} {{(.*?)}} {struct};", header(file), re.S)
    assert found
    code = re.sub(r"/\*.*?\*/", "", found[1], flags=re.S)
    fields = re.findall(r"([\w ]+?[ *]+)(\w+);", code)
    assert [name for _, name in fields] == [name for name, _ in mirror._fields_]  # type: ignore[attr-defined]


def test_kernels_are_enumerated_alike() -> None:
    found = re.findall(r"ELASTIC_MAMBA2_(\w+) = (\d)", header("elastic_mamba2.h"))
    assert {name.lower(): int(code) for name, code in found} == library.KERNELS


def test_glue_names_the_contracts_inputs() -> None:
    found = re.search(r"kNames\[\] = {(.*?)};", header("tensorrt/tensors.h"), re.S)
    assert found
    assert re.findall(r'"(\w+)"', found[1]) == [i["name"] for i in CONTRACT["inputs"]]


def test_reference_is_the_products_op() -> None:
    """Float64 numpy here and the PyTorch op of the exporter, written apart, agree."""
    torch = pytest.importorskip("torch")
    mixer = pytest.importorskip("elastic_export.ops.mamba2_mixer.equations")
    case = Case(calls=((7, 3),), groups=2, heads_per_group=3, head_dim=5, state_size=6)
    data = make_data(case)
    projected = np.nan_to_num(data.projected[0].astype(np.float64))
    values = {name: torch.from_numpy(value.astype(np.float64)) for name, value in data.parameters.items()}
    values["conv_weight"] = values["conv_weight"][:, None]
    states = (torch.from_numpy(state.astype(np.float64)) for state in (data.conv_state, data.ssm_state))
    sizes = mixer.MixerSizes(case.groups, case.head_dim, case.state_size, float(np.float32(EPSILON)), *case.limits)
    y, conv, ssm = mixer.mamba2_mixer(
        torch.from_numpy(projected),
        mixer.MixerParameters(**values),
        None,
        torch.from_numpy(data.length[0]),
        *states,
        sizes,
    )
    wanted = expected(case, data)
    for row, real in enumerate(case.calls[0]):
        np.testing.assert_allclose(y[row, :real], wanted.y[0][row, :real], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(conv, wanted.conv_state, rtol=0, atol=0)
    np.testing.assert_allclose(ssm, wanted.ssm_state, rtol=1e-10)
