"""The twin: float32 arithmetic of the same graph, and roundings where the original is narrow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto

from elastic_runtime.errors import InputError
from elastic_runtime.ort.twin import float32_twin, is_weight, main, narrow_type, residual_sums

Array = np.ndarray[Any, Any]
DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
NARROW = ["bfloat16", "float16"]

#: A weight product, a square, a norm without casts, a residual sum: everything that rounds by itself.
GRAPH = """<ir_version: 11, opset_import: ["": 24]>
small ({t}[B,8] conv_state.0, {t}[8,8] w, {t}[8] g) => ({t}[B,8] conv_state_out.0, float[B,8] logits) {{
  h = Gemm<transB = 1>(conv_state.0, w)
  a = Mul(h, h)
  n = RMSNormalization<axis = -1, epsilon = 0.00001>(a, g)
  s = Transpose<perm = [0, 1]>(n)
  conv_state_out.0 = Add(conv_state.0, s)
  logits = Cast<to = 1>(a)
}}"""

WIDE_WEIGHT = """<ir_version: 11, opset_import: ["": 24]>
wide ({t}[B,8] conv_state.0, float[8] g) => ({t}[B,8] conv_state_out.0, float[B,8] logits) {{
  n = Cast<to = {number}>(g)
  conv_state_out.0 = Mul(conv_state.0, n)
  logits = Cast<to = 1>(conv_state_out.0)
}}"""


def model_of(text: str, dtype: str = "float") -> ModelProto:
    quoted = (
        text.format(t=dtype, number=16 if dtype == "bfloat16" else 10)
        .replace("conv_state.0", '"conv_state.0"')
        .replace("conv_state_out.0", '"conv_state_out.0"')
    )
    model = onnx.parser.parse_model(quoted)
    onnx.checker.check_model(model, full_check=True)
    return model


def feeds_of(dtype: str) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    shapes = {"conv_state.0": (3, 8), "w": (8, 8), "g": (8,)}
    return {name: rng.normal(size=shape).astype(DTYPES[dtype]) for name, shape in shapes.items()}


def run(twin: ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    """Weights in their own dtype, states in float32."""
    session = onnxruntime.InferenceSession(twin.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {}
    for name, array in feeds.items():
        if is_weight(name) and array.dtype == ml_dtypes.bfloat16:
            bits = array.view(np.uint16)
            given[name] = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, TensorProto.BFLOAT16)
        else:
            wide = array if is_weight(name) else array.astype(np.float32)
            given[name] = onnxruntime.OrtValue.ortvalue_from_numpy(wide)
    names = [output.name for output in twin.graph.output]
    values = session.run_with_ort_values(names, given)
    return {name: value.numpy() for name, value in zip(names, values, strict=True)}


def expected(feeds: dict[str, Array], rounding: Any) -> tuple[Array, Array]:
    """`conv_state_out.0` and `logits` by hand; `rounding` is applied to every value that is narrow."""
    x, w, g = (feeds[name].astype(np.float32) for name in ("conv_state.0", "w", "g"))
    h = rounding(x @ w.T)
    a = rounding(h * h)
    normed = a / np.sqrt((a * a).mean(axis=-1, keepdims=True) + np.float32(1e-5))
    n = rounding(rounding(normed) * g)
    return rounding(x + n), a


def exact(x: Array) -> Array:
    return x


@pytest.mark.parametrize("dtype", NARROW)
def test_the_plain_twin_computes_in_float32(dtype: str) -> None:
    model, feeds = model_of(GRAPH, dtype), feeds_of(dtype)
    before = model.SerializeToString()
    found = run(float32_twin(model), feeds)
    state, logits = expected(feeds, exact)
    np.testing.assert_allclose(found["conv_state_out.0"], state, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-5, atol=1e-6)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("inside", [False, True], ids=["an input", "an initializer"])
def test_a_wide_weight_that_the_file_takes_narrow_is_rounded_in_both_twins(dtype: str, inside: bool) -> None:
    """The value that it computes with: the accuracy of what follows is another matter."""
    model, feeds = model_of(WIDE_WEIGHT, dtype), feeds_of(dtype)
    feeds["g"] = np.random.default_rng(1).normal(size=8).astype(np.float32)
    rounded = feeds["g"].astype(DTYPES[dtype]).astype(np.float32)
    x = feeds["conv_state.0"].astype(np.float32)
    if inside:
        [weight] = [value for value in model.graph.input if value.name == "g"]
        model.graph.input.remove(weight)
        model.graph.initializer.append(onnx.numpy_helper.from_array(feeds.pop("g"), "g"))
    found = run(float32_twin(model), {name: feeds[name] for name in feeds if name != "w"})
    np.testing.assert_array_equal(found["conv_state_out.0"], x * rounded)  # the product itself is not


@pytest.mark.parametrize("dtype", NARROW)
def test_the_rounded_twin_rounds_every_narrow_value(dtype: str) -> None:
    """Bit for bit, so onnxruntime has optimised no pair of casts away."""
    feeds = feeds_of(dtype)
    found = run(float32_twin(model_of(GRAPH, dtype), rounded=True), feeds)
    state, logits = expected(feeds, lambda x: x.astype(DTYPES[dtype]).astype(np.float32))
    np.testing.assert_array_equal(found["conv_state_out.0"], state)
    np.testing.assert_array_equal(found["logits"], logits)
    assert not np.array_equal(logits, expected(feeds, exact)[1])


EIGHT_BITS = """<ir_version: 11, opset_import: ["": 24]>
eight (bfloat16[B,8] conv_state.0, int8[8,6] w, float[6] s) => (bfloat16[B,8] conv_state_out.0, float[B,6] logits)
<bfloat16 unit = {{15360}}> {{
  d = DequantizeLinear(w, unit)
  p = Gemm(conv_state.0, d)
  c = Cast<to = 1>(p)
  logits = Mul(c, s)
  conv_state_out.0 = Identity(conv_state.0)
}}"""


@pytest.mark.parametrize("wide", [False, True])
def test_int8_weights_are_dequantised_by_the_twin(wide: bool) -> None:
    """Their values stay int8, whatever other weights become; the product is rounded before its scale, not after."""
    rng, model = np.random.default_rng(2), model_of(EIGHT_BITS)
    x = rng.normal(size=(3, 8)).astype(ml_dtypes.bfloat16)
    values, scales = rng.integers(-127, 128, (8, 6), np.int8), rng.uniform(1, 2, 6).astype(np.float32)
    feeds = {"conv_state.0": x, "w": values, "s": scales}
    product = x.astype(np.float32) @ (values / np.float32(128))
    found = run(float32_twin(model, wide_weights=wide), feeds)["logits"]
    np.testing.assert_allclose(found, product * scales, rtol=1e-5)
    rounded = run(float32_twin(model, rounded=True, wide_weights=wide), feeds)["logits"]
    narrow = product.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(rounded, narrow * scales)


def test_a_float32_model_is_its_own_twin() -> None:
    model = model_of(GRAPH)
    assert float32_twin(model) == model == float32_twin(model, rounded=True)
    assert float32_twin(model) is not model


def test_types_in_the_file_are_claims() -> None:
    """value_info that calls every inner value float32 hides no rounding."""
    honest, lying = model_of(GRAPH, "bfloat16"), model_of(GRAPH, "bfloat16")
    for name in ("h", "a", "n", "s"):
        lying.graph.value_info.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    assert float32_twin(lying, rounded=True) == float32_twin(honest, rounded=True)


def test_weights_keep_their_dtype_and_states_do_not() -> None:
    twin = float32_twin(model_of(GRAPH, "bfloat16"))
    types = {v.name: v.type.tensor_type.elem_type for v in (*twin.graph.input, *twin.graph.output)}
    assert types["w"] == types["g"] == TensorProto.BFLOAT16
    assert {types[name] for name in ("conv_state.0", "conv_state_out.0", "logits")} == {TensorProto.FLOAT}


def test_narrow_initializers_are_cast() -> None:
    model = model_of(GRAPH, "float16")
    scale = next(value for value in model.graph.input if value.name == "g")
    model.graph.input.remove(scale)
    feeds = feeds_of("float16")
    model.graph.initializer.append(onnx.numpy_helper.from_array(feeds.pop("g"), "g"))
    found = run(float32_twin(model), feeds)
    np.testing.assert_allclose(found["logits"], expected(feeds_of("float16"), exact)[1], rtol=1e-5, atol=1e-6)


def test_two_narrow_types_are_refused() -> None:
    model = model_of(GRAPH, "bfloat16")
    model.graph.input[2].type.tensor_type.elem_type = TensorProto.FLOAT16
    assert narrow_type(model_of(GRAPH)) is None
    with pytest.raises(InputError, match=r"model\.onnx: expected one narrow type, found float16 and bfloat16 mixed"):
        narrow_type(model)


def test_residual_sums_are_the_float_additions() -> None:
    text = GRAPH.replace("  logits = Cast", "  i = Shape(a)\n  j = Add(i, i)\n  logits = Cast")
    assert [node.output[0] for node in residual_sums(model_of(text, "bfloat16"))] == ["conv_state_out.0"]


#: A body that sums in float32 or, without its casts, in whatever comes in.
FUNCTION = """<ir_version: 11, opset_import: ["": 24, "elastic": 1]>
call ({{t}}[B,8] conv_state.0, {{t}}[8] w) => ({{t}}[B,8] conv_state_out.0) {{{{
  conv_state_out.0 = elastic.Body(conv_state.0, w)
}}}}
<domain: "elastic", opset_import: ["": 24]>
Body <scale> (x, w) => (y) {{{{
  x_moved = Reshape(x, shape)
  {body}
  y = CastLike(sum, x)
}}}}"""
WIDE = "x_f = Cast<to = 1>(x)\n  w_f = Cast<to = 1>(w)\n  sum = Add(x_f, w_f)"
NARROW_BODY = "sum_n = Add(x, w)\n  sum = Cast<to = 1>(sum_n)"


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("body", [WIDE, NARROW_BODY], ids=["wide", "narrow"])
def test_what_a_function_body_computes_narrow_is_rounded_in_both_twins(dtype: str, rounded: bool, body: str) -> None:
    text = FUNCTION.format(body=body + "\n  sum2 = Mul(sum, sum)").replace("  x_moved = Reshape(x, shape)\n", "")
    text = text.replace("<scale>", "").replace("CastLike(sum, x)", "CastLike(sum2, x)")
    rng, narrow = np.random.default_rng(1), DTYPES[dtype]
    x, w = rng.normal(size=(3, 8)).astype(narrow), rng.normal(size=8).astype(narrow)
    twin = float32_twin(model_of(text, dtype), rounded=rounded)
    assert not twin.functions

    def once(value: Array, narrowed: bool) -> Array:
        return value.astype(narrow).astype(np.float32) if narrowed else value

    total = once(x.astype(np.float32) + w.astype(np.float32), body == NARROW_BODY)
    found = run(twin, {"conv_state.0": x, "w": w})["conv_state_out.0"]
    np.testing.assert_array_equal(found, once(total * total, rounded))


def test_default_attributes_of_a_function_reach_the_twin() -> None:
    text = FUNCTION.format(
        body="limit = Constant<value_float: float = @scale>()\n  x_f = Cast<to = 1>(x)\n  sum = Min(x_f, limit)"
    )
    text = text.replace("  x_moved = Reshape(x, shape)\n", "").replace("<scale>", "")
    quoted = (
        text.format(t="float16")
        .replace("conv_state.0", '"conv_state.0"')
        .replace("conv_state_out.0", '"conv_state_out.0"')
    )
    model = onnx.parser.parse_model(quoted)
    model.functions[0].attribute_proto.append(onnx.helper.make_attribute("scale", 0.25))
    x = np.full((2, 8), 0.5, np.float16)
    found = run(float32_twin(model), {"conv_state.0": x, "w": x[0]})["conv_state_out.0"]
    np.testing.assert_array_equal(found, np.full((2, 8), 0.25, np.float32))
    assert not model.graph.node[0].attribute


def test_the_command_writes_a_twin_and_refuses_what_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, twin, text = tmp_path / "model.onnx", tmp_path / "twin.onnx", tmp_path / "text.onnx"
    onnx.save(model_of(GRAPH, "bfloat16"), model)
    text.write_text("this is no model")
    assert main(["--wide", str(model), str(twin)]) == 0
    assert onnx.load(twin).graph.name == onnx.load(model).graph.name
    for source, found in (("none.onnx", "No such file or directory"), ("text.onnx", "other bytes")):
        assert main([str(tmp_path / source), str(tmp_path / "more.onnx")]) == 2
        assert f"error: {tmp_path}/{source}: expected an ONNX file, found {found}. Name" in capsys.readouterr().err
    outside = onnx.load(model)
    outside.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((8, 8), np.float32), "more"))
    onnx.save(outside, tmp_path / "outside.onnx", save_as_external_data=True, location="more.bin", size_threshold=0)
    (tmp_path / "more.bin").unlink()
    assert main([str(tmp_path / "outside.onnx"), str(tmp_path / "more.onnx")]) == 2
    assert "outside.onnx: expected its weights beside it, found " in capsys.readouterr().err
    assert main([str(model), str(tmp_path / "no/twin.onnx")]) == 2
    assert "/no/twin.onnx: expected a file that can be written, found No such file" in capsys.readouterr().err
    assert not (tmp_path / "more.onnx").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
@pytest.mark.parametrize("before", [None, b"an older twin"], ids=["new", "over another"])
def test_a_full_disk_leaves_no_half_of_a_twin(tmp_path: Path, before: bytes | None) -> None:
    """Nor nothing in place of one that was whole."""
    import resource

    model, twin = tmp_path / "model.onnx", tmp_path / "twin.onnx"
    onnx.save(model_of(GRAPH, "bfloat16"), model)
    if before is not None:
        twin.write_bytes(before)
    size = len(float32_twin(onnx.load(model)).SerializeToString())

    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    command = [sys.executable, "-B", "-m", "elastic_runtime.ort.twin", model, twin]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=no_room)
    todo = "Raise the limit of a file's size (ulimit -f), or name a file system that takes files of this size."
    told = f"error: {twin}: expected room to write, found File too large. {todo}\n"
    assert (done.returncode, done.stderr) == (1, told)
    assert (twin.read_bytes() if twin.exists() else None) == before
    assert {path.name for path in tmp_path.iterdir()} <= {"model.onnx", "twin.onnx"}


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes")
def test_a_twin_goes_to_what_is_no_file_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe or a device is written and stays what it is."""
    onnx.save(model_of(GRAPH, "bfloat16"), tmp_path / "model.onnx")
    os.mkfifo(pipe := tmp_path / "pipe")
    with ThreadPoolExecutor() as reader:
        heard = reader.submit(pipe.read_bytes)
        assert main([str(tmp_path / "model.onnx"), str(pipe)]) == 0
        assert onnx.load_from_string(heard.result()).graph.name == onnx.load(tmp_path / "model.onnx").graph.name
    assert pipe.is_fifo()
    (tmp_path / "folder").mkdir()
    assert main([str(tmp_path / "model.onnx"), str(tmp_path / "folder")]) == 2
    assert "/folder: expected a file that can be written, found Is a directory" in capsys.readouterr().err
    command = [sys.executable, "-B", "-m", "elastic_runtime.ort.twin", tmp_path / "model.onnx", "/dev/stdout"]
    done = subprocess.run(command, capture_output=True, check=False)  # what that leads to has no path
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == float32_twin(onnx.load(tmp_path / "model.onnx")).SerializeToString()


def test_the_command_refuses_a_twin_that_no_file_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """protobuf ends at 2 GiB, which embedded weights in float32 soon are."""

    def too_large(*_: object) -> None:
        raise ValueError("Message onnx.ModelProto exceeds maximum protobuf size of 2GB: 2147483648")

    onnx.save(model_of(GRAPH, "bfloat16"), tmp_path / "model.onnx")
    monkeypatch.setattr(onnx, "save", too_large)
    assert main([str(tmp_path / "model.onnx"), str(tmp_path / "twin.onnx")]) == 2
    told = f"error: {tmp_path}/twin.onnx: expected a twin that one file holds, found Message onnx.ModelProto exceeds"
    assert told in capsys.readouterr().err
