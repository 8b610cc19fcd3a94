"""Other people's tools take our ONNX files, function bodies and all."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from elastic_runtime.twin import main

needs_polygraphy = pytest.mark.skipif(
    importlib.util.find_spec("polygraphy") is None, reason="polygraphy is not installed (extra tensorrt)"
)


def _polygraphy(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from polygraphy.tools._main import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_checker_takes_the_model_and_its_twin(demo_bundle: Path, tmp_path: Path) -> None:
    assert main([str(demo_bundle / "small/model.onnx"), str(tmp_path / "twin.onnx")]) == 0
    for path in (demo_bundle / "small/model.onnx", tmp_path / "twin.onnx"):
        onnx.checker.check_model(onnx.load(path), full_check=True)
    assert main(["one"]) == 2


@needs_polygraphy
def test_polygraphy_inspects_the_model(demo_bundle: Path) -> None:
    done = _polygraphy("inspect", "model", demo_bundle / "small/model.onnx", "--show", "layers")
    assert done.returncode == 0, done.stderr
    assert "Mamba2Mixer" in done.stdout
    assert "ssm_state_out.3" in done.stdout


@needs_polygraphy
def test_polygraphy_runs_the_twin_under_onnxruntime(demo_bundle: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin.onnx"
    assert main(["--wide", str(demo_bundle / "small/model.onnx"), str(twin)]) == 0
    shapes = ["input_ids:[1,3]", "position:[1]", "length:[1]"]
    shapes += [
        f"{value.name}:[{','.join(str({'B': 1, 'S': 8}.get(d.dim_param, d.dim_value)) for d in dims)}]"
        for value in onnx.load(twin).graph.input
        if (dims := value.type.tensor_type.shape.dim) and any(d.dim_param for d in dims) and value.name not in shapes
        if value.name.split(".")[0] in ("conv_state", "ssm_state", "key_cache", "value_cache")
    ]
    ranges = ["input_ids:[0,255]", "position:[0,0]", "length:[3,3]"]
    done = _polygraphy("run", twin, "--onnxrt", "--input-shapes", *shapes, "--val-range", "[-0.1,0.1]", *ranges)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout
