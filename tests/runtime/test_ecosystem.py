"""Other people's tools take our ONNX files, function bodies and all."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from elastic_runtime.ort.twin import main

needs_polygraphy = pytest.mark.skipif(
    importlib.util.find_spec("polygraphy") is None, reason="polygraphy is not installed (extra test)"
)
needs_netron = pytest.mark.skipif(
    importlib.util.find_spec("netron") is None, reason="netron is not installed (extra test)"
)


def _polygraphy(*arguments: object) -> subprocess.CompletedProcess[str]:
    code = "from polygraphy.tools._main import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _inputs(model: Path) -> list[str]:
    """Options that give every input with a symbol in its shape one row, three tokens and caches of eight."""
    sizes = {"B": 1, "T": 3, "S": 8}
    ports = onnx.load(model, load_external_data=False).graph.input
    dims = {port.name: port.type.tensor_type.shape.dim for port in ports}
    shapes = [
        f"{name}:[{','.join(str(sizes.get(d.dim_param, d.dim_value)) for d in shape)}]"
        for name, shape in dims.items()
        if any(d.dim_param for d in shape)
    ]
    ranges = ["input_ids:[0,255]", "position:[0,0]", "length:[3,3]"]
    return ["--onnxrt", "--input-shapes", *shapes, "--val-range", "[-0.1,0.1]", *ranges]


def test_the_checker_takes_the_model_and_its_twin(demo_bundle: Path, tmp_path: Path) -> None:
    assert main([str(demo_bundle / "small/model.onnx"), str(tmp_path / "twin.onnx")]) == 0
    for path in (demo_bundle / "small/model.onnx", tmp_path / "twin.onnx"):
        onnx.checker.check_model(onnx.load(path), full_check=True)
    assert main(["one"]) == 2


@needs_polygraphy
def test_polygraphy_inspects_the_model(demo_bundle: Path) -> None:
    done = _polygraphy("inspect", "model", demo_bundle / "small/model.onnx", "--show", "layers")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[Op: Mamba2Mixer]") == 4
    assert "ssm_state_out.3" in done.stdout


@needs_polygraphy
def test_polygraphy_runs_the_twin_under_onnxruntime(demo_bundle: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin.onnx"
    assert main(["--wide", str(demo_bundle / "small/model.onnx"), str(twin)]) == 0
    done = _polygraphy("run", twin, *_inputs(twin))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout


@needs_polygraphy
def test_onnxruntime_refuses_a_16_bit_model_as_the_page_says(demo_bundle: Path) -> None:
    done = _polygraphy("run", demo_bundle / "small/model.onnx", "--onnxrt")
    assert done.returncode != 0
    assert "NOT_IMPLEMENTED" in done.stdout + done.stderr or "bfloat16" in done.stdout + done.stderr


@needs_polygraphy
@pytest.mark.slow
def test_polygraphy_runs_embedded_float32_weights_as_they_are(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from elastic_export.cli import main; main()", "--budget", "small"]
    command += ["--target", "rtx5080", "--precision", "fp32", "--weights", "embedded", "--ops", "native"]
    command += ["--no-verify", "--max-context", "64", "--max-tokens", "16", "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    model = tmp_path / "out/small/model.onnx"
    assert len(onnx.load(model).functions) == 1
    assert not [port.name for port in onnx.load(model).graph.input if port.name.startswith("backbone.")]
    done = _polygraphy("run", model, *_inputs(model))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout


@pytest.fixture
def netron_url(demo_bundle: Path) -> Iterator[str]:
    """Where Netron serves the demo's smallest model, for as long as a test runs."""
    netron: Any = importlib.import_module("netron")
    address = netron.serve(str(demo_bundle / "small/model.onnx"), address=("localhost", 0))
    yield f"http://{address[0]}:{address[1]}"
    netron.stop(address)


@needs_netron
@pytest.mark.skipif(shutil.which("node") is None, reason="no node here: Netron's loader is JavaScript")
def test_netrons_own_loader_reads_the_graph_and_the_function_bodies(demo_bundle: Path, netron_url: str) -> None:
    spec = importlib.util.find_spec("netron")
    assert spec is not None
    assert spec.origin is not None
    script = Path(__file__).with_name("netron_open.mjs")
    command = ["node", str(script), str(Path(spec.origin).parent), f"{netron_url}/data/model.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    seen, model = json.loads(done.stdout), onnx.load(demo_bundle / "small/model.onnx")
    assert seen["format"] == f"ONNX v{model.ir_version}"
    assert seen["inputs"] == [port.name for port in model.graph.input]
    assert seen["outputs"] == [port.name for port in model.graph.output]
    constants = {"Constant"}  # drawn as values of the nodes they feed
    assert seen["nodes"] == [node.op_type for node in model.graph.node if node.op_type not in constants]
    assert [name for name, _ in seen["functions"]] == [body.name for body in model.functions]
    assert seen["nodes"].count("Mamba2Mixer") == 4
    assert "Mamba2Mixer" in [name for name, _ in seen["functions"]]
    assert all(count > 0 for _, count in seen["functions"])
