"""Graphs as text: parsed, in a form that can be compared, and run by ONNX's reference evaluator."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from elastic_export.graph.facts import Facts, StateSlice, Weight, set_facts
from elastic_export.graph.values import constant_of
from elastic_export.ops.cached_attention.torch_op import cached_attention
from elastic_export.ops.last_token.torch_op import last_token
from elastic_export.ops.mamba2_mixer.torch_op import masked_mamba2_mixer
from elastic_export.ops.masked_rms_norm.torch_op import masked_rms_norm

Array = np.ndarray[Any, Any]


FLOAT = ir.DataType.FLOAT


_DOTTED = re.compile(r"\b(mask|w|(?:conv_state|ssm_state|key_cache|value_cache)(?:_out)?)\.(\w+)")


STATES = ("conv_state", "ssm_state", "key_cache", "value_cache")


def parse_text(text: str) -> ir.Model:
    """A model of ONNX text. Inputs `mask.*` are masks, `conv_state.0` and the like states, `w*` weights.

    Types and shapes of values in between stand behind the signature, as ONNX text has them.
    """
    text = _DOTTED.sub(r"\1__\2", text).replace('"B*T"', "B__T")  # identifiers of ONNX text hold no dots
    model = ir.from_onnx_text(f'<ir_version: 11, opset_import: ["": 24, "elastic": 1]>\n{text}')
    _restore_names(model)
    facts = Facts()
    for value in model.graph.inputs:
        name, dims = str(value.name), value.shape or ()
        if name.startswith("mask."):
            facts.masks.append(name)
        elif name.startswith("w"):
            shape = tuple(int(str(d)) for d in dims)
            facts.weights[name] = Weight.of(name, shape)
        elif name.split(".", maxsplit=1)[0] in STATES:
            kind, layer = name.split(".")
            runs = tuple(((0, d),) if isinstance(d, int) else None for d in dims)
            facts.states[name] = StateSlice(name, f"{kind}_out.{layer}", kind, int(layer), runs)  # type: ignore[arg-type]
    set_facts(model, facts)
    return model


def _restore_names(model: ir.Model) -> None:
    for value in (*model.graph.inputs, *(output for node in model.graph for output in node.outputs)):
        value.name = str(value.name).replace("__", ".")
        if value.shape is not None:
            dims = [d if isinstance(d, int) else str(d.value).replace("__", "*") for d in value.shape]
            value.shape = ir.Shape(dims)


def _operand(value: ir.Value | None, names: Mapping[ir.Value, str]) -> str:
    if value is None:
        return "-"
    data = constant_of(value)
    return names[value] if data is None else f"{data.dtype}{list(data.shape)}{data.tolist()}"


def _typed(value: ir.Value, name: str) -> str:
    dims = [d if isinstance(d, int) else d.value for d in value.shape] if value.shape is not None else "?"
    return f"{name}:{value.dtype}{dims}"


def canonical_form(model: ir.Model, rename: Mapping[str, str] | None = None) -> list[str]:
    """Inputs, nodes and outputs, one a line; inner values by number, constants by content, attributes by name."""
    rename = rename or {}
    names = {value: rename.get(str(value.name), str(value.name)) for value in model.graph.inputs}
    lines = sorted(_typed(value, name) for value, name in names.items())
    for number, node in enumerate(model.graph):
        attributes = ", ".join(f"{a.name}={a.value}" for a in sorted(node.attributes.values(), key=lambda a: a.name))
        operands = ", ".join(_operand(value, names) for value in node.inputs)
        for index, value in enumerate(node.outputs):
            names[value] = f"%{number}.{index}"
        results = ", ".join(_typed(value, names[value]) for value in node.outputs)
        lines.append(f"{results} = {node.domain or 'onnx'}.{node.op_type}<{attributes}>({operands})")
    lines += [f"{rename.get(str(v.name), v.name)} <- {_operand(v, names)}" for v in model.graph.outputs]
    return lines


def _elastic_op(name: str, function: Callable[..., Any], attributes: Sequence[str] = ()) -> type[OpRun]:
    """An op of the parent graph for onnx's evaluator, by its PyTorch definition."""

    def run(self: OpRun, *inputs: Array, **given: Any) -> tuple[Array, ...]:
        values = [given[a] for a in attributes]
        result = function(*(torch.from_numpy(np.array(x)) for x in inputs), *values)
        return tuple(t.numpy() for t in (result if isinstance(result, tuple) else (result,)))

    parameters = ", ".join(["self", "*inputs", *(f"{a}=None" for a in attributes)])
    given = ", ".join(["self", "*inputs", *(f"{a}={a}" for a in attributes)])
    scope: dict[str, Any] = {"run": run}
    exec(f"def _run({parameters}):\n    return run({given})", scope)  # onnx reads attribute names off the signature
    return type(name, (OpRun,), {"op_domain": "elastic", "_run": scope["_run"]})


_ATTENTION_ATTRIBUTES = ("num_heads", "num_key_value_heads", "head_dim", "scale")
_MIXER_ATTRIBUTES = ("n_groups", "head_dim", "state_size", "epsilon", "time_step_min", "time_step_max")


def _mixer(*arguments: Any) -> Any:
    tensors, rest = arguments[:10], arguments[10:]
    return masked_mamba2_mixer(*tensors, torch.ones_like(tensors[6]), *rest)


ELASTIC_OPS = [
    _elastic_op("MaskedRMSNorm", masked_rms_norm, ["epsilon"]),
    _elastic_op("LastToken", last_token),
    _elastic_op("CachedAttention", cached_attention, _ATTENTION_ATTRIBUTES),
    _elastic_op("MaskedMamba2Mixer", masked_mamba2_mixer, _MIXER_ATTRIBUTES),
    _elastic_op("Mamba2Mixer", _mixer, _MIXER_ATTRIBUTES),
]


def evaluate_graph(model: ir.Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every output by onnx's reference evaluator; feeds that the graph does not take are left out."""
    taken = {str(value.name) for value in model.graph.inputs}
    evaluator = ReferenceEvaluator(ir.to_proto(model), new_ops=ELASTIC_OPS)
    values = evaluator.run(None, {name: data for name, data in feeds.items() if name in taken})
    return {str(value.name): data for value, data in zip(model.graph.outputs, values, strict=True)}


def random_feeds(model: ir.Model, **sizes: int) -> dict[str, Array]:
    """Normal floats for every float input, zeros for integers; `sizes` gives the symbols."""
    rng, feeds = np.random.default_rng(0), {}
    for value in model.graph.inputs:
        shape = [d if isinstance(d, int) else sizes[str(d.value)] for d in value.shape or ()]
        data = rng.normal(size=shape).astype(np.float32)
        feeds[str(value.name)] = data if value.dtype == FLOAT else np.zeros(shape, np.int64)
    return feeds


@pytest.fixture(scope="session")
def parse() -> Callable[[str], ir.Model]:
    """`parse(text)`: a model with facts."""
    return parse_text


@pytest.fixture(scope="session")
def canonical() -> Callable[..., list[str]]:
    """`canonical(model, rename={})`: a form to compare two graphs by."""
    return canonical_form


@pytest.fixture(scope="session")
def evaluate() -> Callable[..., dict[str, Array]]:
    """`evaluate(model, feeds)`: outputs by name."""
    return evaluate_graph


@pytest.fixture(scope="session")
def feeds_of() -> Callable[..., dict[str, Array]]:
    """`feeds_of(model, B=2, T=3)`: random feeds."""
    return random_feeds
