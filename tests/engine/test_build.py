"""The build: a real little plugin, whose unversioned library the parser opens; what TensorRT raises and warns of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elastic_export.engine.build import configure, load, make_logger, tensorrt_step, warnings
from elastic_export.engine.build_folder import BuildFaultError
from elastic_export.engine.engine_facts import LogLine
from elastic_export.engine.process import build_engine
from elastic_export.engine.request import EngineRequest
from elastic_export.engine.rtx import TensorRTRTX
from elastic_runtime.errors import BuildError, InputError, InternalError
from elastic_runtime.format.interface import Port, token_ports

TWICE = """<ir_version: 11, opset_import: ["": 24, "elastic": 1]>
g (int64[B,T] input_ids, int64[B] position, int64[B] length, float[48,8] emb) => (float[B,T,8] logits) {
  x = Gather(emb, input_ids)
  a = elastic.Twice(x)
  logits = elastic.Twice(a)
}
<domain: "elastic", opset_import: ["": 24]>
Twice (x) => (y) { y = Add(x, x) }
"""


@pytest.fixture
def twice_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineRequest:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    model = tmp_path / "twice.onnx"
    import onnx
    import onnx.parser

    onnx.save(onnx.parser.parse_model(TWICE), str(model))
    return EngineRequest(
        onnx=model,
        output=tmp_path / "twice.engine",
        compute_capabilities=("SM120",),
        precision="fp32",
        max_tokens=4,
        max_context=8,
        max_batch=1,
        ops="plugin",
        ports=token_ports(),
        outputs=(Port("logits", "float32", ("B", "T", 8)),),
        weights=(Port("emb", "float32", (48, 8)),),
        plugin_ops={"Twice": 2},
        plugin_creators={"Twice": "toy_creators:twice"},
    )


def test_a_model_local_function_becomes_the_plugin_of_its_name(twice_request: EngineRequest) -> None:
    facts = build_engine(twice_request)
    assert facts.plugin_layers == {"Twice": 2}
    assert twice_request.output.stat().st_size == facts.size


def test_native_mode_inlines_the_same_file(twice_request: EngineRequest) -> None:
    facts = build_engine(replace(twice_request, ops="native"))
    assert facts.plugin_layers == {}
    assert facts.unused_inputs == ("position", "length")


def test_a_missing_plugin_layer_is_named(twice_request: EngineRequest) -> None:
    text = r"^plugin layers: expected 3 x Twice, found 2 x Twice \(a node .* is inlined\)\. This is a fault of"
    with pytest.raises(InternalError, match=text):
        build_engine(replace(twice_request, plugin_ops={"Twice": 3}))
    assert not twice_request.output.exists()


def test_an_op_without_a_creator_is_refused_before_the_build(twice_request: EngineRequest) -> None:
    with pytest.raises(InputError, match="a TensorRT plugin creator for Mamba2Mixer, found creators for Twice"):
        build_engine(replace(twice_request, plugin_ops={"Mamba2Mixer": 1}))


def test_a_creator_that_cannot_be_imported_is_the_requests_fault(twice_request: EngineRequest) -> None:
    with pytest.raises(InputError, match="plugin Twice: expected a creator at toy_creators:none"):
        build_engine(replace(twice_request, plugin_creators={"Twice": "toy_creators:none"}))


@pytest.mark.parametrize(
    ("creator", "found"),
    [
        ("abort", r"it died of SIGABRT, last words: .*about to abort"),
        ("killed", r"it was killed \(signal 9, the kernel's answer to memory running out\)"),
    ],
)
def test_a_dying_builder_becomes_an_error_with_its_last_words(
    twice_request: EngineRequest, creator: str, found: str
) -> None:
    with pytest.raises(BuildError, match=found):
        build_engine(replace(twice_request, plugin_creators={"Twice": f"toy_creators:{creator}"}))
    assert sorted(path.name for path in twice_request.output.parent.iterdir()) == ["twice.onnx"]


def test_a_fault_in_the_process_comes_with_its_traceback(twice_request: EngineRequest) -> None:
    with pytest.raises(BuildFaultError) as caught:
        build_engine(replace(twice_request, plugin_creators={"Twice": "toy_creators:raising"}))
    assert str(caught.value) == "RuntimeError: creator exploded"
    (note,) = caught.value.__notes__
    assert note.startswith("In the build process:\nTraceback (most recent call last):\n")
    assert "in raising" in note
    assert sorted(path.name for path in twice_request.output.parent.iterdir()) == ["twice.onnx"]


def test_a_hanging_builder_is_killed(twice_request: EngineRequest) -> None:
    hanging = replace(twice_request, plugin_creators={"Twice": "toy_creators:hang"})
    with pytest.raises(BuildError, match=r"to end within 3 s, found it still ran, last words: still thinking"):
        build_engine(hanging, timeout=3)
    assert sorted(path.name for path in twice_request.output.parent.iterdir()) == ["twice.onnx"]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (RuntimeError("std::exception"), BuildError),
        (TypeError("pybind11::init(): factory function returned nullptr"), BuildError),
        (TypeError("incompatible function arguments"), TypeError),
        (KeyError("x"), KeyError),
    ],
)
def test_what_tensorrt_raises_of_itself_is_a_failed_build(raised: Exception, expected: type[Exception]) -> None:
    with pytest.raises(expected), tensorrt_step("the builder"):
        raise raised


def test_a_package_that_does_not_load_is_named() -> None:
    class Broken(TensorRTRTX):
        def module(self) -> Any:
            raise FileNotFoundError("libtensorrt_rtx.so.1")

    told = r"^the package tensorrt-rtx: expected it to load, found FileNotFoundError: libtensorrt_rtx\.so\.1\. Install"
    with pytest.raises(BuildError, match=told):
        load(Broken())


def test_the_builders_warnings_are_told_once_a_line_each() -> None:
    log = [LogLine("WARNING", "Unused Input: length"), LogLine("WARNING", "odd\n  and long "), LogLine("INFO", "new")]
    assert warnings([*log, *log]) == ("odd and long",)


def test_that_an_unused_input_stays_is_no_news_of_those_alone_that_the_parser_named() -> None:
    def log(name: str, said: str = "is unused or used only at compile-time, but is not being removed.") -> LogLine:
        return LogLine("WARNING", f"[RemoveDeadLayers] Input Tensor {name} {said}")

    unread = LogLine("WARNING", "ModelImporter.cpp:505: Unused Input: position")
    assert warnings([unread, log("position")]) == ()
    for others in ([log("position")], [unread, log("length")], [unread, log("position", "is of no use")]):
        assert warnings(others) == (others[-1].text,)


def test_an_engine_allocates_nothing_of_its_own_and_computes_what_it_says(twice_request: EngineRequest) -> None:
    """NVIDIA asks for the first of whoever records a run as a CUDA graph."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    builder = trt.Builder(make_logger(trt, lambda line: None))
    config = configure(trt, builder, twice_request)
    assert config.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    assert not config.get_flag(trt.BuilderFlag.TF32)
