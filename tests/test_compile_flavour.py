"""An export with the full TensorRT takes the same path up to its build process, for which a stand-in answers here."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

from elastic_export import compile as compiling
from elastic_export.bundle import built
from elastic_export.engine import full, process, rtx
from elastic_export.engine.build_folder import LIBRARY_FOLDER, REQUEST_FILE, RESULT_FILE, BuildFolder
from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.engine.request import EngineRequest
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from elastic_runtime.format.manifest import Plugin
from small_export import contents, run, write_small
from text_engine import text_engine

# One worker: its exports share a trace.
pytestmark = [pytest.mark.usefixtures("exports_trace_once"), pytest.mark.xdist_group("pipeline_flavour")]

VERSION = "11.4.0.106"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("parent") / "tiny")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[EngineRequest]:
    """What the build processes were asked for; every one of them ends with an engine."""
    requests = list[EngineRequest]()

    def answer(place: BuildFolder, request: EngineRequest, *_: object) -> int:
        inside = EngineRequest.from_json((place.folder / REQUEST_FILE).read_text())
        assert list((place.folder / LIBRARY_FOLDER).iterdir()) == []
        requests.append(inside)
        (place.folder / inside.output).write_text("engine")
        states = {port.name: port.output for port in inside.states() if port.alias(inside.ops) == "must"}
        facts = EngineFacts(
            size=6, seconds=1.5, peak_rss=123, activation_bytes=(1000, 2000), plugin_layers=dict(inside.plugin_ops),
            in_place=states, layers=1, unused_inputs=(), flavour=inside.flavour, version=VERSION, chances=(),
            oversize=(), warnings=(),
        )  # fmt: skip
        (place.folder / RESULT_FILE).write_text(json.dumps({"facts": facts.to_json()}))
        return 0

    monkeypatch.setattr(process, "run_child", answer)
    return requests


@pytest.fixture
def machine_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is installed, and there is a card of the RTX 50 series."""
    monkeypatch.setattr(full, "package_version", lambda name: VERSION)
    monkeypatch.setattr(full, "gpu_compute_capabilities", lambda: ("SM120", "SM89"))


def operators(model: Path) -> set[str]:
    """Of the graph and of the bodies of its functions."""
    file = onnx.load(str(model), load_external_data=False)
    return {node.op_type for part in (file.graph, *file.functions) for node in part.node}


@pytest.mark.usefixtures("machine_with_it")
def test_an_export_with_it_is_lowered_asked_for_and_described_as_its_own(
    tmp_path: Path, checkpoint: Path, asked: list[EngineRequest]
) -> None:
    result = run(checkpoint, tmp_path / "out", flavour="tensorrt")
    ops = operators(tmp_path / "out/small/model.onnx")
    assert "Attention" not in ops
    assert {"Softmax", "TensorScatter"} <= ops
    [request] = asked
    assert (request.flavour, request.compute_capabilities, request.ops) == ("tensorrt", ("SM120",), "plugin")
    assert request.plugin_ops == {"Mamba2Mixer": 2, "CachedAttention": 1}
    [engine] = Bundle.open(result.output, "digests").manifest.budgets[0].engines
    assert (engine.flavour, engine.version) == ("tensorrt", VERSION)
    assert engine.plugin == Plugin("libelastic_plugins.so", "enterprise-11.4")
    assert result.manifest.options["flavour"] == "tensorrt"
    assert "tensorrt-rtx" not in result.manifest.versions
    report = json.loads((tmp_path / "out/small/report.json").read_text())
    assert report["engines"]["small/rtx5080.engine"]["flavour"] == "tensorrt"
    assert report["passed"] is True


def test_the_default_product_is_not_mentioned_among_the_options(
    tmp_path: Path, checkpoint: Path, asked: list[EngineRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that bundles made before there was a choice can be added to, and equal exports stay equal."""
    monkeypatch.setattr(built, "build_engine", _unstarted)
    result = run(checkpoint, tmp_path / "out", verify=False)
    assert "flavour" not in result.manifest.options
    assert result.manifest.budgets[0].engines[0].flavour == "tensorrt-rtx"
    assert "Attention" in operators(tmp_path / "out/small/model.onnx")


def _unstarted(request: EngineRequest, **more: object) -> EngineFacts:
    return text_engine(request)


@pytest.mark.usefixtures("machine_with_it")
def test_engines_of_both_products_in_one_bundle_are_both_said(
    tmp_path: Path, checkpoint: Path, asked: list[EngineRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In either order; a float32 graph is one for both, for no product fuses its attention."""
    orders = []
    for name, order in {"a": ("tensorrt", "tensorrt-rtx"), "b": ("tensorrt-rtx", "tensorrt")}.items():
        for flavour in order:
            target = {"tensorrt": "rtx5080", "tensorrt-rtx": "rtx4090"}[flavour]
            with monkeypatch.context() as patch:
                if flavour == "tensorrt-rtx":
                    patch.setattr(built, "build_engine", _unstarted)
                sizes = {"weights": "sliced", "precision": "fp32", "verify": False}
                result = run(checkpoint, tmp_path / name, targets=target, flavour=flavour, add=True, **sizes)
        assert result.manifest.options["flavour"] == ("tensorrt", "tensorrt-rtx")
        engines = {engine.target: engine.flavour for engine in result.manifest.budgets[0].engines}
        assert engines == {"rtx5080": "tensorrt", "rtx4090": "tensorrt-rtx"}
        orders.append(result.manifest.options)
    assert orders[0] == orders[1]


@pytest.mark.usefixtures("machine_with_it")
def test_another_products_graph_is_not_added(
    tmp_path: Path, checkpoint: Path, asked: list[EngineRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(built, "build_engine", _unstarted)
        run(checkpoint, tmp_path / "out", targets="rtx4090", verify=False)
    before = contents(tmp_path / "out")
    with pytest.raises(InputError, match=r"budget small: expected as in the bundle, the small/model\.onnx of its"):
        run(checkpoint, tmp_path / "out", flavour="tensorrt", add=True, verify=False)
    assert contents(tmp_path / "out") == before
    assert asked == []


@pytest.mark.usefixtures("machine_with_it")
def test_a_target_of_another_gpu_is_refused_by_name_before_anything_is_built(
    tmp_path: Path, checkpoint: Path, asked: list[EngineRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "trace_parent", lambda *args, **more: pytest.fail("began to build"))
    told = (
        "target rtx4090: expected compute capability SM120, this machine's: the full TensorRT builds for no other, "
        "found SM89. Build on a machine with that GPU, or leave out --flavour tensorrt: TensorRT-RTX needs no GPU."
    )
    with pytest.raises(InputError) as caught:
        run(checkpoint, tmp_path / "out", targets="rtx5080,rtx4090", flavour="tensorrt")
    assert str(caught.value) == told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "gpus", "told"),
    [
        (
            None,
            ("SM120",),
            "tensorrt: expected the full TensorRT to be installed, 10.15 or newer, found no such",
        ),
        ("10.14.1.48.post1", ("SM120",), "10.15 or newer, found 10.14.1.48.post1. In a clone: pip install ./engines"),
        (VERSION, (), "tensorrt: expected an NVIDIA GPU: the full TensorRT times kernels while it builds, found no"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_built(
    tmp_path: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str | None,
    gpus: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.setattr(full, "package_version", lambda name: version)
    monkeypatch.setattr(full, "gpu_compute_capabilities", lambda: gpus)
    monkeypatch.setattr(compiling, "trace_parent", lambda *args, **more: pytest.fail("began to build"))
    with pytest.raises(InputError) as caught:
        run(checkpoint, tmp_path / "out", flavour="tensorrt")
    assert told in str(caught.value)
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_the_default_products_package_is_missed_before_the_first_step_too(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtx, "package_version", lambda name: None)
    monkeypatch.setattr(compiling, "trace_parent", lambda *args, **more: pytest.fail("began to build"))
    with pytest.raises(InputError, match=r"^tensorrt-rtx: expected to be installed, found no such package"):
        run(checkpoint, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
