"""The Python declaration of Mamba2Mixer: fields and shapes by the contract, and real SM120 engines through it."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from elastic_export.engine.process import build_engine
from elastic_export.ops.mamba2_mixer.creator import declaration
from elastic_export.ops.plugin_creator import bind_shapes, read_fields
from elastic_runtime.errors import BuildError, InternalError

sys.path.insert(0, str(Path(__file__).parents[2] / "plugins"))
from mixer_model import Mixer, mixer_request

DECLARATION = declaration()
CONTRACT = DECLARATION.contract
FIELDS = {"n_groups": np.int32(2), "head_dim": np.int32(20), "state_size": np.int32(16), "epsilon": np.float32(1e-5)}
DIMS = [(1, 7, 392), (224, 1, 4), (224,), (8,), (8,), (8,), (160,), (1,), (1, 3, 224), (1, 8, 20, 16)]


def test_fields_take_defaults_in_the_contracts_order() -> None:
    values = read_fields(DECLARATION, FIELDS)
    assert list(values) == [a["name"] for a in CONTRACT["attributes"]]
    assert (values["time_step_min"], values["time_step_max"]) == (0.0, math.inf)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"head_dim": None}, "attribute head_dim: expected a value, found none"),
        (
            {"chunk": 64},
            "attributes: expected n_groups, head_dim, state_size, epsilon, time_step_min, time_step_max, found chunk",
        ),
        ({"head_dim": 257}, "attribute head_dim: expected 1 to 256, found 257"),
        ({"state_size": 300}, "attribute state_size: expected 1 to 256, found 300"),
        ({"n_groups": 0}, "attribute n_groups: expected 1 to 65535, found 0"),
        ({"epsilon": math.nan}, "attribute epsilon: expected 0 or more, found nan"),
        (
            {"time_step_min": 2.0, "time_step_max": 1.0},
            "attribute time_step_min: expected at most time_step_max 1.0, found 2.0",
        ),
    ],
)
def test_bad_fields_are_named(changes: dict[str, object], text: str) -> None:
    given = {name: value for name, value in {**FIELDS, **changes}.items() if value is not None}
    with pytest.raises(ValueError, match=re.escape(f"Mamba2Mixer: {text}")):
        read_fields(DECLARATION, given)


def test_shapes_bind_the_symbols() -> None:
    symbols = bind_shapes(CONTRACT, read_fields(DECLARATION, FIELDS), DIMS)
    assert symbols == {"B": 1, "T": 7, "H": 8, "P": 20, "G": 2, "N": 16, "K": 4, "di": 160, "dc": 224}


@pytest.mark.parametrize("index", range(len(DIMS)))
def test_every_wrong_dimension_is_named(index: int) -> None:
    dims = [list(d) for d in DIMS]
    dims[index][-1] += 1
    with pytest.raises(ValueError, match=r"Mamba2Mixer: (shape of \w+|H): expected .*, found "):
        bind_shapes(CONTRACT, read_fields(DECLARATION, FIELDS), dims)


@pytest.mark.parametrize(("symbol", "most"), [("B", 65535), ("T", 65535 * 16)])
def test_limits_of_a_call_are_the_kernels(symbol: str, most: int) -> None:
    sizes = {"B": 1, "T": 7, symbol: most + 1}
    batch, tokens = sizes["B"], sizes["T"]
    dims = [(batch, tokens, *DIMS[0][2:]), *DIMS[1:7], *((batch, *d[1:]) for d in DIMS[7:])]
    with pytest.raises(ValueError, match=f"Mamba2Mixer: {symbol}: expected 1 to {most}, found {most + 1}"):
        bind_shapes(CONTRACT, read_fields(DECLARATION, FIELDS), dims)


def test_limits_are_the_contracts() -> None:
    dims = [*DIMS]
    dims[1], dims[8] = (224, 1, 9), (1, 8, 224)
    with pytest.raises(ValueError, match="Mamba2Mixer: K: expected 2 to 8, found 9"):
        bind_shapes(CONTRACT, read_fields(DECLARATION, FIELDS), dims)


def test_engine_with_one_plugin_layer(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    request = mixer_request(tmp_path)
    facts = build_engine(request)
    assert facts.plugin_layers == {"Mamba2Mixer": 1}
    assert facts.in_place == {"ssm_state.0": "ssm_state_out.0"}
    # Scratch is what the kernels ask for: dt and x|B|C in float32, see workspace_bytes.
    assert facts.activation_bytes == (1024, 4 * 256 * (8 + 224))
    first = request.output.read_bytes()
    build_engine(request)
    assert request.output.read_bytes() == first


def test_engine_refuses_what_the_contract_does_not_know(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(BuildError):
        build_engine(mixer_request(tmp_path, mixer=Mixer(head_dim=257)))
    assert not (tmp_path / "mixer.engine").exists()


def test_a_plugin_that_declares_other_buffers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "engine"))
    with pytest.raises(InternalError, match=r"ssm_state\.0: expected to share one buffer with ssm_state_out\.0, found"):
        build_engine(mixer_request(tmp_path, creator="toy_creators:two_buffers"))
    assert not (tmp_path / "mixer.engine").exists()


def test_a_declaration_that_fails_to_answer_is_no_engine_without_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT lets an error in `get_workspace_size` pass, and would give the kernels no memory."""
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "engine"))
    with pytest.raises(InternalError, match=r"plugin Mamba2Mixer: expected its declaration to answer .*, found KeyErr"):
        build_engine(mixer_request(tmp_path, creator="toy_creators:mixer_without_an_answer"))
    assert not (tmp_path / "mixer.engine").exists()


def test_28_mixers_of_the_12b_shape(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    mixer = Mixer(heads=128, head_dim=80, groups=8, state=128)
    facts = build_engine(mixer_request(tmp_path, mixer=mixer, count=28))
    assert facts.plugin_layers == {"Mamba2Mixer": 28}
    assert facts.peak_rss < 1_000_000_000
