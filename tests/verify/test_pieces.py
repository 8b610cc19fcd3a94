"""A file in pieces: together they are the file, and a wrong cut is found."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, helper

from elastic_export.verify.plan import walk
from elastic_runtime.errors import BuildError, ElasticError, InternalError
from elastic_runtime.ort.onnx_model import OnnxModel
from elastic_runtime.ort.pieces import Piece, check_pieces, cut, shared_nodes

LAYERS = (0, 1, 3, 4)
Pieces = list[Piece]


@pytest.fixture
def file(compiled: Any) -> ModelProto:
    return onnx.load(compiled("bf16").emitted.path)


@pytest.mark.parametrize("every_token", [False, True])
@pytest.mark.parametrize(("precision", "head_dim"), [("bf16", 16), ("fp32", 16), ("fp16", 20)])
def test_every_node_is_in_one_piece(compiled: Any, precision: str, head_dim: int, every_token: bool) -> None:
    model = onnx.load(compiled(precision, head_dim=head_dim, every_token=every_token).emitted.path)
    pieces = cut(model, LAYERS)
    assert [piece.name for piece in pieces] == ["embedding", *(f"layer {i}" for i in LAYERS), "head"]
    held = [node.name for piece in pieces for node in piece.model.graph.node]
    shared = {node.name for node in shared_nodes(model)}
    assert {name for name in held if held.count(name) > 1} <= shared
    assert {node.op_type for node in shared_nodes(model)} <= {
        "Add", "Concat", "Max", "Shape", "Sub", "Unsqueeze",
    }  # fmt: skip
    assert set(held) == {node.name for node in model.graph.node}
    for piece in pieces:
        onnx.checker.check_model(piece.model)
        assert all(name.startswith(f"backbone.{piece.name.replace(' ', 's.')}.") for name in piece.weights) or (
            piece.name in ("embedding", "head")
        )


def states_of(pieces: Pieces) -> list[list[str]]:
    return [piece.states for piece in pieces]


TWO_CACHES = [["key_cache.0", "value_cache.0"], ["conv_state.0", "ssm_state.0"], ["key_cache.1", "value_cache.1"]]


def test_every_attention_layer_knows_its_own_cache_alone(two_caches: Any, outcome: Any) -> None:
    pieces = cut(onnx.load(two_caches.emitted.path), (0, 1, 2, 3, 4))
    assert states_of(pieces[1:4]) == TWO_CACHES
    assert "key_cache.0" not in [value.name for value in pieces[3].model.graph.input]
    assert outcome(two_caches, two_caches.emitted) == ""


def test_layers_share_what_they_know_of_a_cache(two_caches: Any, outcome: Any) -> None:
    """As files of 0.1 have it, whose attention is in standard ops: the second layer sizes its mask by the first one's
    cache, and carries on its own alone.
    """
    model = onnx.load(two_caches.emitted.path)
    older = onnx.inliner.inline_selected_functions(model, [("elastic", "CachedAttention")])
    (sized,) = [node for node in older.graph.node if node.op_type == "Shape" and list(node.input) == ["key_cache.1"]]
    sized.input[:] = ["key_cache.0"]
    pieces = cut(older, (0, 1, 2, 3, 4))
    assert states_of(pieces[1:4]) == TWO_CACHES
    assert "key_cache.0" in [value.name for value in pieces[3].model.graph.input]
    assert outcome(two_caches, two_caches.rewritten(older)) == ""


def test_pieces_one_after_the_other_are_the_file(compiled: Any) -> None:
    """Bit for bit: same nodes, same sums."""
    model = compiled("bf16")
    file, weights = onnx.load(model.emitted.path), dict(model.load(model.recipe(model.emitted)))
    pieces = cut(file, LAYERS)
    whole = OnnxModel(file, weights.items(), threads=1)
    parts = [OnnxModel(p.model, [(n, weights[n]) for n in p.weights], inner=p.inner, threads=1) for p in pieces]
    state = whole.empty_state(2, model.plan.context)
    for ids, position, length in walk(model.plan, model.arch.vocab_size):
        expected, found = whole.run(ids, position, length, state), dict[str, Any]()
        for piece, part in zip(pieces, parts, strict=True):
            given = {piece.stream: found[piece.stream]} if piece.stream else {}
            found |= part.run(ids, position, length, {name: state[name] for name in piece.states} | given)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
        state = whole.new_state(expected)


def test_tensors_outside_the_file_are_weights_of_their_pieces(file: ModelProto) -> None:
    """A file with its weights in a file beside it: initializers that were not loaded."""
    embedded = ModelProto()
    embedded.CopyFrom(file)
    inputs = [v for v in embedded.graph.input if v.name.startswith(("backbone.", "lm_head."))]
    for value in inputs:
        tensor = onnx.TensorProto(name=value.name, data_type=value.type.tensor_type.elem_type)
        tensor.dims.extend(d.dim_value for d in value.type.tensor_type.shape.dim)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        embedded.graph.initializer.append(tensor)
        embedded.graph.input.remove(value)
    for mine, theirs in zip(cut(embedded, LAYERS), cut(file, LAYERS), strict=True):
        assert sorted(mine.weights) == sorted(theirs.weights)
        assert list(mine.model.graph.node) == list(theirs.model.graph.node)


def node_of(piece: Piece, op: str) -> NodeProto:
    return next(node for node in piece.model.graph.node if node.op_type == op)


def node_left_out(pieces: Pieces) -> None:
    pieces[1].model.graph.node.remove(node_of(pieces[1], "Mamba2Mixer"))


def norm_left_to_the_piece_before(pieces: Pieces) -> None:
    """The cut one node late."""
    norm = node_of(pieces[2], "Cast")
    pieces[1].model.graph.node.append(norm)
    pieces[2].model.graph.node.remove(norm)


def node_in_two_pieces(pieces: Pieces) -> None:
    pieces[3].model.graph.node.append(node_of(pieces[4], "Relu"))


def node_twice(pieces: Pieces) -> None:
    pieces[4].model.graph.node.append(node_of(pieces[4], "Relu"))


def shared_node_left_out(pieces: Pieces) -> None:
    graph = pieces[2].model.graph
    graph.node.remove(node_of(pieces[2], "Shape"))
    graph.input.remove(next(v for v in graph.input if v.name == "input_ids"))


def shared_node_without_a_reader(pieces: Pieces) -> None:
    last = node_of(pieces[-1], "Sub")
    pieces[1].model.graph.initializer.extend(t for t in pieces[-1].model.graph.initializer if t.name == last.input[1])
    pieces[1].model.graph.node.append(last)


def nodes_out_of_order(pieces: Pieces) -> None:
    nodes = list(pieces[4].model.graph.node)
    del pieces[4].model.graph.node[:]
    pieces[4].model.graph.node.extend(reversed(nodes))


def layer_left_out(pieces: Pieces) -> None:
    del pieces[2]


def layers_swapped(pieces: Pieces) -> None:
    pieces[1], pieces[3] = pieces[3], pieces[1]


def layer_on_an_older_stream(pieces: Pieces) -> None:
    """It reads what the layer before the last gave: its own sum still stands in the right place."""
    pieces[4] = replace(pieces[4], stream=pieces[3].stream)


def branch_without_the_stream(pieces: Pieces) -> None:
    pieces[3] = replace(pieces[3], result=pieces[3].branch)


def embedding_with_a_stream(pieces: Pieces) -> None:
    del pieces[0]


def head_left_out(pieces: Pieces) -> None:
    del pieces[-1]


def weight_of_another_layer(pieces: Pieces) -> None:
    gemm = node_of(pieces[4], "Gemm")
    gemm.input[1] = gemm.input[1].replace("layers.4.mixer.up", "layers.4.mixer.down")


def attribute_lost(pieces: Pieces) -> None:
    del node_of(pieces[1], "Mamba2Mixer").attribute[-1]


def constant_changed(pieces: Pieces) -> None:
    tensor = pieces[2].model.graph.initializer[0]
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + 1, tensor.name))


def input_of_another_type(pieces: Pieces) -> None:
    state = next(v for v in pieces[1].model.graph.input if v.name == "ssm_state.0")
    state.type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16


def stream_made_again(pieces: Pieces) -> None:
    pieces[1].model.graph.node.insert(1, node_of(pieces[0], "Gather"))


def state_output_lost(pieces: Pieces) -> None:
    del pieces[1].model.graph.output[-1]


def state_of_another_piece(pieces: Pieces) -> None:
    pieces[3].model.graph.output.append(pieces[1].model.graph.output[-1])


def branch_not_given(pieces: Pieces) -> None:
    piece = pieces[1]
    piece.model.graph.output.remove(next(v for v in piece.model.graph.output if v.name == piece.branch))


def body_changed(pieces: Pieces) -> None:
    del pieces[1].model.functions[0].node[3]


def body_lost(pieces: Pieces) -> None:
    del pieces[1].model.functions[:]


def another_opset(pieces: Pieces) -> None:
    pieces[1].model.opset_import[0].version -= 1


WRONG_CUTS: dict[Callable[[Pieces], None], str] = {
    node_left_out: r"node Mamba2Mixer_0: expected one piece that has it, found none",
    norm_left_to_the_piece_before: r"layer 0: expected nodes that somebody reads, found Cast_3",
    node_in_two_pieces: r"node Relu_0: expected one piece that has it, found layer 3 and layer 4",
    node_twice: r"layer 4: expected nodes once each",
    shared_node_left_out: r"layer 1: expected the maker of Shape_0",
    shared_node_without_a_reader: r"layer 0: expected (nodes that somebody reads|nodes once each)",
    nodes_out_of_order: r"layer 4: expected nodes once each, in the order of the file",
    layer_left_out: r"node \S+: expected one piece that has it, found none",
    layers_swapped: r"layer 3: expected the stream Gather_0, which embedding gives, found Add_1",
    layer_on_an_older_stream: r"layer 4: expected the stream Add_2, which layer 3 gives, found Add_1",
    branch_without_the_stream: r"layer 4: expected the stream Reshape_13, which layer 3 gives, found Add_2",
    embedding_with_a_stream: r"node Gather_0: expected one piece that has it, found none",
    head_left_out: r"node \S+: expected one piece that has it, found none",
    weight_of_another_layer: r"layer 4: expected nodes of the file, found Gemm_8",
    attribute_lost: r"layer 0: expected nodes of the file, found Mamba2Mixer_0",
    constant_changed: r"layer 1: expected the tensor constant_\d+ of the file",
    input_of_another_type: r"layer 0: expected the input ssm_state\.0 of the file",
    stream_made_again: r"node Gather_0: expected one piece that has it, found embedding and layer 0",
    state_output_lost: r"outputs: expected the 7 of the file, once each",
    state_of_another_piece: r"outputs: expected the 7 of the file, once each",
    branch_not_given: r"layer 0: expected the outputs",
    body_changed: r"layer 0: expected functions and opsets of the file",
    body_lost: r"layer 0: expected functions and opsets of the file",
    another_opset: r"layer 0: expected functions and opsets of the file",
}


@pytest.mark.parametrize("wrong", WRONG_CUTS, ids=lambda wrong: wrong.__name__)
def test_a_wrong_cut_is_found(file: ModelProto, wrong: Callable[[Pieces], None]) -> None:
    pieces = copy.deepcopy(cut(file, LAYERS))
    check_pieces(file, pieces)
    wrong(pieces)
    with pytest.raises(InternalError, match=r"^pieces of model\.onnx: " + WRONG_CUTS[wrong]):
        check_pieces(file, pieces)


# ------------------------------------------------------------------------------------- files that cannot be cut right


def layer_reads_an_older_stream(model: ModelProto) -> None:
    """The last layer's norm, not its sum: a node of the cut that crosses two pieces."""
    cast = next(n for n in model.graph.node if "Add_2" in n.input and n.op_type == "Cast")
    cast.input[0] = "Add_1"


def sum_of_an_older_stream(model: ModelProto) -> None:
    next(n for n in model.graph.node if "Add_3" in n.output).input[0] = "Add_1"


def layer_reads_the_cache_of_another(model: ModelProto) -> None:
    """The last layer's product grows by nothing, made of a cache."""
    relu = next(n for n in model.graph.node if n.op_type == "Relu")
    at, gemm = list(model.graph.node).index(relu), relu.input[0]
    relu.input[0] = "faulty:x"
    for node in reversed([
        helper.make_node("Sub", ["key_cache.0", "key_cache.0"], ["faulty:zeros"]),
        helper.make_node("ReduceSum", ["faulty:zeros"], ["faulty:zero"], keepdims=0),
        helper.make_node("Sub", [gemm, "faulty:zero"], ["faulty:x"]),
    ]):  # fmt: skip
        model.graph.node.insert(at, node)


def states_of_other_sizes(model: ModelProto) -> None:
    mixer = [n for n in model.graph.node if n.op_type == "Mamba2Mixer"][1]
    mixer.input[9] = "ssm_state.0"


def state_of_nobody(model: ModelProto) -> None:
    mixer = next(n for n in model.graph.node if "ssm_state_out.0" in n.output)
    mixer.output[2] = "lost"
    sizes = helper.make_node("Concat", ["batch", "three"], ["sizes"], axis=0)
    made = [
        helper.make_node("Shape", ["length"], ["batch"]),
        helper.make_node("Constant", [], ["three"], value_ints=[8, 8, 16]),
        sizes,
        helper.make_node("ConstantOfShape", ["sizes"], ["ssm_state_out.0"]),
    ]
    model.graph.node.extend(made)


def state_without_an_output(model: ModelProto) -> None:
    del model.graph.output[-1]


UNFIT: dict[Callable[[ModelProto], None], tuple[type[ElasticError], str]] = {
    layer_reads_an_older_stream: (
        BuildError,
        r"^model\.onnx, Add_3: expected Add_2 alone as the stream, found Add_1 and Add_2",
    ),
    sum_of_an_older_stream: (BuildError, r"^model\.onnx, node Add_3: expected Add_2 as the stream, found Add_1"),
    layer_reads_the_cache_of_another: (
        BuildError,
        r"^model\.onnx, layer 4: expected to write the states that it reads",
    ),
    states_of_other_sizes: (BuildError, r"^model\.onnx: expected types and shapes that agree, found .*Mamba2Mixer_1"),
    state_of_nobody: (BuildError, r"^model\.onnx: ssm_state_out\.0: expected one layer that computes it, found 0"),
    state_without_an_output: (
        BuildError,
        r"^model\.onnx: expected an output for every state, found no value_cache_out",
    ),
}


@pytest.mark.parametrize("change", UNFIT, ids=lambda change: change.__name__)
def test_a_file_that_has_no_such_pieces_is_named(file: ModelProto, change: Callable[[ModelProto], None]) -> None:
    change(file)
    kind, text = UNFIT[change]
    with pytest.raises(kind) as caught:
        cut(file, LAYERS)
    assert re.search(text, str(caught.value)), caught.value
