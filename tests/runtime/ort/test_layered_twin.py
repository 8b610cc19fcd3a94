"""A file run a layer at a time gives what it gives as a whole, however its weights are held."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError, ElasticError, InputError, UnavailableError
from elastic_runtime.format.golden import Golden, read_golden
from elastic_runtime.format.sketch import written_rows
from elastic_runtime.ort import layered_twin
from elastic_runtime.ort.layered_twin import LayeredTwin
from elastic_runtime.ort.open_layered import NotLayeredError, open_layered
from elastic_runtime.ort.open_onnx import open_onnx
from elastic_runtime.ort.weight_source import OutsideTensors
from small_export import run, write_small

Array = np.ndarray[Any, Any]
Answer = tuple[list[Array], dict[str, Array]]
pytestmark = pytest.mark.usefixtures("exports_trace_once")

#: (dtype of the checkpoint, options): a base row, and one change a row.
BUNDLES: dict[str, tuple[str, dict[str, Any]]] = {
    "shared": ("bf16", {}),
    "cut": ("bf16", {"budgets": "full"}),  # what is not cut is a view of the shard
    "sliced": ("bf16", {"weights": "sliced"}),
    "embedded": ("bf16", {"weights": "embedded"}),
    "native": ("bf16", {"ops": "native"}),
    "every-token": ("bf16", {"logits": "all"}),
    "fp16": ("fp16", {}),
    "fp32": ("fp32", {}),
    "fp16-embedded": ("bf16", {"weights": "embedded", "precision": "fp16"}),
    "fp32-sliced": ("bf16", {"weights": "sliced", "precision": "fp32", "logits": "all"}),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """A bundle of `BUNDLES`, made once each."""
    folder, made = tmp_path_factory.mktemp("layered"), dict[str, Bundle]()

    def make(name: str) -> Bundle:
        if name not in made:
            dtype, options = BUNDLES[name]
            source = folder / f"checkpoint-{dtype}"
            if not source.exists():
                write_small(source, dtype)
            made[name] = Bundle.open(run(source, folder / name, **options).output)
        return made[name]

    return make


@pytest.fixture
def copy(exported: Callable[[str], Bundle], tmp_path: Path) -> Bundle:
    """The shared bundle, to be changed."""
    return Bundle.open(Path(shutil.copytree(exported("shared").path, tmp_path / "copy")))


def golden_of(bundle: Bundle) -> Golden:
    [budget] = bundle.budgets
    return read_golden(bundle.path / str(budget.golden))


def calls_of(golden: Golden) -> Iterator[tuple[Any, Any, Any]]:
    for call in range(golden.calls):
        yield golden.call_ids(call), golden.position[call], golden.length[call]


def layered(bundle: Bundle, twin: LayeredTwin | None = None) -> Answer:
    golden, states = golden_of(bundle), dict[str, Array]()
    twin = twin or open_layered(bundle, bundle.budgets[0])

    def take(name: str, values: Array) -> None:
        states[name] = values

    return twin.run(list(calls_of(golden)), golden.reach, take), states


def whole(bundle: Bundle) -> Answer:
    golden, [budget] = golden_of(bundle), bundle.budgets
    opened = open_onnx(bundle, budget, context=golden.reach, max_tokens=int(golden.tokens.max()), weights="float32")
    with closing(opened) as backend:
        backend.start(len(golden.ids))
        return [np.array(backend.call(*call)) for call in calls_of(golden)], dict(backend.states())


def assert_equal(golden: Golden, mine: Answer, other: Answer, error: float) -> None:
    """The logits of the rows that were fed, and the states where they were written."""
    assert len(mine[0]) == len(other[0]) == golden.calls
    for found, expected, length in zip(mine[0], other[0], golden.length, strict=True):
        np.testing.assert_allclose(found[length > 0], expected[length > 0], rtol=0, atol=error)
    assert set(mine[1]) == set(other[1])
    for name, found in mine[1].items():
        expected = other[1][name]
        if "cache" in name:
            found, expected = (written_rows(values, golden.ends) for values in (found, expected))  # noqa: PLW2901
        np.testing.assert_array_equal(found, expected, err_msg=name)


@pytest.mark.parametrize("name", BUNDLES)
def test_layer_by_layer_is_the_file(exported: Callable[[str], Bundle], name: str) -> None:
    """Bit for bit: two rows, calls of ragged lengths, one in which a row is idle."""
    bundle = exported(name)
    golden = golden_of(bundle)
    assert len(golden.ids) == 2
    assert (golden.length < golden.tokens[:, None]).any()
    assert (golden.length == 0).any()
    assert_equal(golden, layered(bundle), whole(bundle), 0.0)


@pytest.mark.parametrize(("name", "rows"), [("shared", 1), ("shared", 40), ("every-token", 40), ("shared", 96)])
def test_the_head_in_blocks_of_rows_is_the_head(
    exported: Callable[[str], Bundle], monkeypatch: pytest.MonkeyPatch, name: str, rows: int
) -> None:
    """97 tokens: in blocks that leave a rest. A product of fewer columns may be summed in another order."""
    bundle = exported(name)
    width = bundle.budgets[0].widths.hidden_size
    monkeypatch.setattr(layered_twin, "_BLOCK", rows * width + 1)
    bound = 1e-6 * max(float(np.abs(logits).max()) for logits in golden_of(bundle).logits)
    assert_equal(golden_of(bundle), layered(bundle), whole(bundle), bound)


def test_too_little_memory_is_said_with_the_figure(
    exported: Callable[[str], Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = exported("shared")
    twin, golden = open_layered(bundle, bundle.budgets[0]), golden_of(bundle)
    need = twin.needed(list(calls_of(golden)), golden.reach)
    monkeypatch.setattr(layered_twin, "free_ram", lambda: need)
    layered(bundle, twin)
    monkeypatch.setattr(layered_twin, "free_ram", lambda: need - 1)
    with pytest.raises(
        UnavailableError, match=r"^budget 'small' on the CPU: expected 0\.\d+ GiB of free memory .* a time"
    ):
        layered(bundle, twin)


def test_what_is_reckoned_is_a_piece_and_not_the_model() -> None:
    """By hand: an MLP of 24 channels between a table and a head of 1000 tokens; two rows of 5 tokens."""
    mlp = """<ir_version: 11, opset_import: ["": 24]>
    tiny (int64[B,T] input_ids, int64[B] position, int64[B] length, bfloat16[1000,8] table, bfloat16[24,8] up,
          bfloat16[8,24] down, bfloat16[1000,8] head) => (float[B,T,1000] logits) {
      x = Gather(table, input_ids)
      flat = Constant<value_ints = [-1, 8]>()
      r = Reshape(x, flat)
      u = Gemm<transB = 1>(r, up)
      d = Gemm<transB = 1>(u, down)
      back = Shape(x)
      b = Reshape(d, back)
      s = Add(x, b)
      t = Reshape(s, flat)
      g = Gemm<transB = 1>(t, head)
      n = Shape<end = 2>(input_ids)
      v = Constant<value_ints = [1000]>()
      out = Concat<axis = 0>(n, v)
      y = Reshape(g, out)
      logits = Cast<to = 1>(y)
    }"""
    model = onnx.parser.parse_model(mlp)
    call = (np.zeros((2, 5), np.int64), np.zeros(2, np.int64), np.full(2, 5))
    need = LayeredTwin(model, [0], Nothing(), "b").needed([call], 5)
    head, stream, logits = 4 * 2 * 1000 * 8, 4 * 2 * 2 * 5 * 8, 4 * 2 * 2 * 1000
    assert need == head + stream + logits + 2 * model.ByteSize() + layered_twin._MARGIN


class Nothing:
    """A `WeightSource` that is not asked."""

    names: frozenset[str] = frozenset()

    def shape(self, name: str) -> tuple[int, ...]:
        raise KeyError(name)

    def load(self, name: str) -> Array:
        raise KeyError(name)

    def rows(self, name: str, first: int, count: int, axis: int = 0) -> Array:
        raise KeyError(name)


# ----------------------------------------------------------------------------------------- files that are not so made


def dead_node(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["logits"], ["unread"], name="dead"))


def dead_weight(model: ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("unread", TensorProto.FLOAT, [1], [1.0]))


def unread_input(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("unread", TensorProto.FLOAT, [3]))


def unused_function(model: ModelProto) -> None:
    body = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(helper.make_function("elastic", "Unused", ["x"], ["y"], body, model.opset_import))


def graph_in_a_node(model: ModelProto) -> None:
    """An If that gives the last layer's branch, and does not name it."""
    total = [node for node in model.graph.node if node.op_type == "Add"][-1]
    at, branch = list(model.graph.node).index(total), total.input[1]
    ends = [onnx.ValueInfoProto(name="same")]  # its type is the branch's, in the twin too
    inside = helper.make_graph([helper.make_node("Identity", [branch], ["same"])], "inside", [], ends)
    yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    chosen = helper.make_node("If", ["yes"], ["taken"], "chosen", then_branch=inside, else_branch=inside)
    total.input[1] = "taken"
    model.graph.node.insert(at, chosen)
    model.graph.node.insert(at, yes)


def streams_passed_on(model: ModelProto) -> None:
    """As another exporter may write it: each sum has the branch first."""
    for node in model.graph.node:
        if node.op_type == "Add" and node.name:
            first, second = node.input
            node.input[:] = [second, first]


UNLAYERED: dict[Callable[[ModelProto], None], str] = {
    dead_node: "model.onnx with dead in place of nothing but what the layers need",
    dead_weight: "model.onnx with unread in place of nothing but what the layers need",
    unread_input: "model.onnx with unread in place of",
    unused_function: "model.onnx with function elastic::Unused in place of",
    graph_in_a_node: "model.onnx, node chosen with one, of If in place of no graph inside of it",
    streams_passed_on: "model.onnx",
}


@pytest.mark.parametrize("change", UNLAYERED, ids=lambda change: change.__name__)
def test_a_file_without_layers_of_ours_is_said_to_have_none(copy: Bundle, change: Callable[[ModelProto], None]) -> None:
    path = copy.path / copy.budgets[0].model
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    with pytest.raises(NotLayeredError) as caught:
        open_layered(copy, copy.budgets[0])
    assert f"small/model.onnx: expected a file to cut into its layers, found {UNLAYERED[change]}" in str(caught.value)
    if change is not unread_input:  # which would be a weight that the recipe does not have
        whole(copy)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe garbage"])
def test_a_file_that_is_no_model_has_no_layers(copy: Bundle, content: bytes) -> None:
    (copy.path / copy.budgets[0].model).write_bytes(content)
    with pytest.raises(NotLayeredError, match="found "):
        open_layered(copy, copy.budgets[0])


# --------------------------------------------------------------------------------------------- weights that are wrong


def test_weights_of_another_shape_or_name_or_dtype_are_refused(copy: Bundle) -> None:
    path = copy.path / str(copy.budgets[0].weights)
    given = path.read_text()
    recipe = json.loads(given)["inputs"]

    def fails(kind: type[ElasticError], text: str, **changed: Any) -> None:
        path.write_text(json.dumps({"inputs": {k: v for k, v in {**recipe, **changed}.items() if v}}))
        with pytest.raises(kind, match=text):
            layered(copy)

    norm, head, kept = "backbone.norm_f.weight", "lm_head.weight", r"^weight lm_head\.weight"
    fails(
        InputError, r"^weights of the model: expected \d+ inputs, found differing \['backbone\.norm_f", **{norm: None}
    )
    fewer = recipe[head] | {"shape": [96, 40], "runs": [[[0, 96]], recipe[head]["runs"][1]]}
    fails(BuildError, kept + r": expected \[97, 40\], as in the file, found \[96, 40\]", **{head: fewer})
    other = recipe[head] | {"dtype": "fp16"}
    fails(BuildError, kept + " of head: expected bfloat16 .*, found float16", **{head: other})
    gone = recipe[norm] | {"file": "../weights/gone.safetensors"}
    fails(InputError, r"backbone\.norm_f\.weight: expected the file .*gone\.safetensors", **{norm: gone})
    path.write_text(given)
    layered(copy)


def test_embedded_weights_stay_in_the_folder(exported: Callable[[str], Bundle], tmp_path: Path) -> None:
    """A tensor that leads elsewhere, and a file that ends before it does."""
    bundle = Bundle.open(Path(shutil.copytree(exported("embedded").path, tmp_path / "copy")))
    path = bundle.path / bundle.budgets[0].model
    data, model = path.with_name("model.onnx.data"), onnx.load(path, load_external_data=False)
    data.write_bytes(data.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"bytes in .*model\.onnx\.data, found \d+ bytes, of which"):
        layered(bundle)
    outside = [t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    for tensor in outside:
        next(entry for entry in tensor.external_data if entry.key == "location").value = "../../secret"
    onnx.save(model, path)
    with pytest.raises(InputError, match="expected a relative path inside the bundle"):
        OutsideTensors(path).load(outside[0].name)
    with pytest.raises(InputError, match="expected a relative path inside the bundle"):
        layered(bundle)


def test_tokens_beyond_the_table_are_refused_as_by_the_whole_file(copy: Bundle) -> None:
    golden, twin = golden_of(copy), open_layered(copy, copy.budgets[0])
    with pytest.raises(BuildError, match="indices element out of data bounds"):
        twin.run(list(calls_of(replace(golden, ids=golden.ids + 97))), golden.reach, lambda *_: None)
