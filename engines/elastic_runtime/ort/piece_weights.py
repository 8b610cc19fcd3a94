"""The weights of a file's pieces, one piece at a time: layers whole, table and head by rows.

In float32; int8 where the file dequantises them.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto

from elastic_runtime.backend import Ints
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.ort.backend_onnx import widened
from elastic_runtime.ort.pieces import Piece
from elastic_runtime.ort.twin import is_weight
from elastic_runtime.ort.weight_source import WeightSource

Array = npt.NDArray[Any]  # float32, or int8 where the file dequantises it
#: Ops behind the head's product that change no value but its type.
_MOVED = ("Cast", "Identity")
_AGAIN = "export the bundle again"


def declared_shapes(file: ModelProto) -> dict[str, tuple[int, ...]]:
    """The shape that the file says of each weight outside it; inputs that are none have symbols, and are left out."""
    inputs = {v.name: v.type.tensor_type.shape.dim for v in file.graph.input if is_weight(v.name)}
    outside = {t.name: tuple(t.dims) for t in file.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL}
    return outside | {name: tuple(dim.dim_value for dim in dims) for name, dims in inputs.items()}


def check_source(file: ModelProto, weights: WeightSource) -> None:
    """Names and shapes, before rows of the head and of the embedding are given to pieces that were made for them.

    Raises InputError, BuildError: they are not those of the file.
    """
    declared = declared_shapes(file)
    if differing := sorted(declared.keys() ^ weights.names):
        expected, found = f"{len(declared)} inputs", f"differing {differing[:4]}"
        raise InputError("weights of the model", expected=expected, found=found, todo=_AGAIN)
    for name, shape in declared.items():
        if weights.shape(name) != shape:
            expected, found = f"{list(shape)}, as in the file", str(list(weights.shape(name)))
            raise BuildError(f"weight {name}", expected=expected, found=found, todo=_AGAIN)


def piece_weights(piece: Piece, source: WeightSource) -> dict[str, Array]:
    """A piece's weights in float32."""
    return {name: _widened(_checked(piece, name, source.load(name))) for name in piece.weights}


def tables(piece: Piece) -> set[str]:
    """Weights of which rows are picked by the token ids, and nothing else is read."""
    nodes = piece.model.graph.node
    by_token = [n for n in nodes if n.op_type == "Gather" and not _axis(n) and n.input[1] == "input_ids"]
    elsewhere = {name for n in nodes if n not in by_token for name in n.input}
    return {n.input[0] for n in by_token}.intersection(piece.weights) - elsewhere


def embedding_weights(piece: Piece, source: WeightSource, ids: Ints) -> dict[str, Array]:
    """As `piece_weights`; of a table that tokens pick rows from, the rows of `ids` alone.

    The others are zero, in memory that nobody touches. No node of the piece can read them: see `tables`. Ids that the
    table has no row for are left to onnxruntime, which refuses them.
    """
    picked, weights = tables(piece), dict[str, Array]()
    for value in piece.model.graph.input:
        if value.name in piece.weights and value.name in picked:
            eight_bits = value.type.tensor_type.elem_type == onnx.TensorProto.INT8
            table = _untouched(
                [d.dim_value for d in value.type.tensor_type.shape.dim], np.int8 if eight_bits else np.float32
            )
            for row in np.unique(ids[ids < len(table)]):
                found = _checked(piece, value.name, source.rows(value.name, int(row), 1), rows=1)
                table[row] = _widened(found)[0]
            weights[value.name] = table
        elif value.name in piece.weights:
            weights[value.name] = _widened(_checked(piece, value.name, source.load(value.name)))
    return weights


def _untouched(shape: Sequence[int], kind: type[np.int8 | np.float32]) -> Array:
    """Zeros that take memory by the small page where they are written, not by the large ones that numpy asks for."""
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}  # not Windows
    dtype = np.dtype(kind)
    memory = mmap.mmap(-1, dtype.itemsize * math.prod(shape), **private)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)


@dataclass(frozen=True)
class HeadMatrix:
    """The weights of a head that can be given in blocks of its rows, each block for its own part of the logits.

    Attributes:
        axes: along which axis each has the rows, by its input's name: the matrix, or int8 values and their scales.
        rows: V.
        columns: d.
    """

    axes: Mapping[str, int]
    rows: int
    columns: int


def head_matrix(piece: Piece) -> HeadMatrix | None:
    """What can be given in blocks; None where the piece is not made so: the logits must be one product with a matrix as
    the checkpoint has it, or with an int8 one [d, V] before its scales, and nothing but conversions and the return of
    [N, V] to [B, T, V] behind.
    """
    makers, widths, scales = _makers(piece.model), [], list[str]()
    node = makers["logits"]
    while node.op_type in (*_MOVED, "Mul") or (node.op_type == "Reshape" and _width(piece.model, makers, node)):
        widths += [_width(piece.model, makers, node)] if node.op_type == "Reshape" else []
        scales += [node.input[1]] if node.op_type == "Mul" else []
        node = makers[node.input[0]]
    if node.op_type != "Gemm" or len(node.input) != 2:
        return None
    inputs = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in piece.model.graph.input}
    turned, name = bool(_attribute(node, "transB")), node.input[1]
    if not turned and name in makers and makers[name].op_type == "DequantizeLinear":
        name = makers[name].input[0]
    axes = {name: 0 if turned else 1, **dict.fromkeys(scales, 0)}
    readers = [n for n in piece.model.graph.node if set(axes) & set(n.input)]
    if not set(axes) <= inputs.keys() or len(readers) != len(axes) or len(scales) != (not turned):
        return None
    rows, columns = inputs[name] if turned else reversed(inputs[name])
    return HeadMatrix(axes, rows, columns) if all(width == rows for width in widths) else None


def head_of(piece: Piece, matrix: HeadMatrix, rows: int) -> Piece:
    """The piece with that many rows of its matrix."""
    model = ModelProto()
    model.CopyFrom(piece.model)
    for value in (*model.graph.input, *model.graph.output):
        if value.name in matrix.axes or value.name == "logits":
            value.type.tensor_type.shape.dim[matrix.axes.get(value.name, -1)].dim_value = rows
    makers = _makers(model)
    node = makers["logits"]
    while node.op_type != "Gemm":
        if node.op_type == "Reshape":
            joined = makers[node.input[1]]
            name = f"{joined.input[-1]}.rows"  # of its own: another node may read the constant that was there
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([rows], np.int64), name))
            joined.input[-1] = name
        node = makers[node.input[0]]
    return Piece(piece.name, model, piece.stream, piece.branch, piece.result)


def _makers(model: ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def _width(model: ModelProto, makers: Mapping[str, onnx.NodeProto], node: onnx.NodeProto) -> int | None:
    """The last extent that a Reshape gives whose shape is joined of other extents and a constant, for it alone."""
    joined = makers.get(node.input[1])
    alone = sum(node.input[1] in other.input for other in model.graph.node) == 1
    if joined is None or joined.op_type != "Concat" or not alone:
        return None
    [last] = [tensor for tensor in model.graph.initializer if tensor.name == joined.input[-1]] or [None]
    return None if last is None or list(last.dims) != [1] else int(onnx.numpy_helper.to_array(last)[0])


def head_weights(piece: Piece, source: WeightSource, matrix: HeadMatrix, first: int, count: int) -> dict[str, Array]:
    """The weights of `head_of`, rows of the matrix from `first` on."""
    found = {name: _checked(piece, name, source.load(name)) for name in piece.weights if name not in matrix.axes}
    for name, axis in matrix.axes.items():
        found[name] = _checked(piece, name, source.rows(name, first, count, axis), count, axis)
    return {name: _widened(array) for name, array in found.items()}


def _checked(
    piece: Piece, name: str, array: npt.NDArray[Any], rows: int | None = None, axis: int = 0
) -> npt.NDArray[Any]:
    """What the file asks for; of the shape onnxruntime says it, whole inputs are given to it."""
    [value] = [value for value in piece.model.graph.input if value.name == name]
    wanted = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
    if rows is not None:
        shape[axis] = rows
    if array.dtype != wanted or (rows is not None and list(array.shape) != shape):
        expected = f"{wanted} {shape}"
        found = f"{array.dtype} {list(array.shape)}"
        raise BuildError(f"weight {name} of {piece.name}", expected=expected, found=found, todo=_AGAIN)
    return array


def _widened(array: npt.NDArray[Any]) -> Array:
    """A float32 array of its own, or one of float32 or int8 itself."""
    return widened(np.require(array, requirements=["C", "A"]))


def _axis(node: onnx.NodeProto) -> int:
    return int(_attribute(node, "axis") or 0)


def _attribute(node: onnx.NodeProto, name: str) -> Any:
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), None)
