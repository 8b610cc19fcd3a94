"""The mixer's function body in onnxruntime (float32) against the readable reference in float64.

Measure and tolerance are the contract's: relative RMS of each head, 1e-5 for y and for the SSM state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from elastic_export.ops.contract import load_contract
from elastic_export.ops.mamba2_mixer.body import function as mixer_function
from elastic_export.ops.mamba2_mixer.equations import MixerParameters, MixerSizes, mamba2_mixer
from elastic_export.opset import OPSET

Array = np.ndarray[Any, Any]
CONTRACT = load_contract("mamba2_mixer")
TOLERANCE: dict[str, float] = CONTRACT.tolerance["float32"]


@dataclass(frozen=True)
class Case:
    """One call; each row of the table below changes one thing of the base."""

    T: int = 70
    lengths: tuple[int, ...] = (70, 66)
    H: int = 4
    P: int = 5
    G: int = 2
    N: int = 6
    K: int = 4
    limits: tuple[float, float] = (0.0, math.inf)
    dt_bias: tuple[float, float] = (-6.0, 1.0)  # range of the bias: softplus of it is dt
    tiny: bool = False  # activations so small that epsilon counts

    @property
    def sizes(self) -> MixerSizes:
        return MixerSizes(self.G, self.P, self.N, 1e-5, *self.limits)

    def inputs(self, seed: int = 1) -> dict[str, Array]:
        rng, di, B = np.random.default_rng(seed), self.H * self.P, len(self.lengths)
        dc = di + 2 * self.G * self.N
        normal = rng.standard_normal
        values: dict[str, Array] = {
            "projected": normal((B, self.T, di + dc + self.H)),
            "conv_weight": normal((dc, 1, self.K)) / math.sqrt(self.K),
            "conv_bias": 0.2 * normal(dc),
            "A_log": np.log(rng.uniform(1, 16, self.H)),
            "D": normal(self.H),
            "dt_bias": rng.uniform(*self.dt_bias, self.H),
            "norm_weight": 1 + 0.2 * normal(di),
            "conv_state": normal((B, self.K - 1, dc)),
            "ssm_state": normal((B, self.H, self.P, self.N)),
        }
        values["projected"][..., -self.H :] *= 0.5
        values["projected"][..., :di] *= 1e-3 if self.tiny else 1.0
        return {name: value.astype(np.float32) for name, value in values.items()} | {"length": np.array(self.lengths)}


CASES = {
    "base": Case(),
    **{f"T = {T}": Case(T=T, lengths=(T, max(0, T - 2))) for T in (1, 2, 63, 64, 65, 200)},
    "lengths 0 and 1": Case(lengths=(0, 1)),
    "one row": Case(lengths=(70,)),
    **{f"K = {K}": Case(K=K) for K in (2, 3)},
    "one group": Case(G=1),
    "as many groups as heads": Case(G=4),
    "one head": Case(H=1, G=1),
    "P = N = 1": Case(T=9, lengths=(9, 7), P=1, N=1),
    "wide": Case(T=20, lengths=(20, 13), H=6, P=40, N=33),
    "both limits": Case(limits=(0.05, 0.2)),
    "upper limit": Case(limits=(0.0, 0.01)),
    "tiny dt": Case(dt_bias=(-16.0, -9.0)),  # dt from 1e-7 to 1e-4
    "large decay": Case(dt_bias=(2.0, 40.0)),  # |dt·A| up to 640: states vanish between tokens
    "one token, large decay": Case(T=1, lengths=(1, 1), dt_bias=(2.0, 40.0)),
}


def model_of(case: Case, function: onnx.FunctionProto, **attributes: float) -> bytes:
    """A file of one mixer node, batch and tokens dynamic; `attributes` replace those of the case."""
    given: dict[str, Any] = {"n_groups": case.G, "head_dim": case.P, "state_size": case.N, "epsilon": 1e-5}
    if case.limits != (0.0, math.inf):
        given |= {"time_step_min": case.limits[0], "time_step_max": case.limits[1]}
    inputs = case.inputs()

    def value(name: str) -> onnx.ValueInfoProto:
        source = inputs.get(name.removesuffix("_out"), np.zeros((1, 1, 1), np.float32))
        dims: list[Any] = list(source.shape)
        if name in ("projected", "length", "conv_state", "ssm_state", "y", "conv_state_out", "ssm_state_out"):
            dims[0] = "B"
        if name in ("projected", "y"):
            dims[1:] = ["T", case.H * case.P if name == "y" else dims[2]]
        kind = TensorProto.INT64 if name == "length" else TensorProto.FLOAT
        return helper.make_tensor_value_info(name, kind, dims)

    names, results = [o.name for o in CONTRACT.inputs], [o.name for o in CONTRACT.outputs]
    node = helper.make_node("Mamba2Mixer", names, results, domain="elastic", **(given | attributes))
    graph = helper.make_graph([node], "mixer", [value(n) for n in names], [value(n) for n in results])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("elastic", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=11, functions=[function])
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def expected_of(case: Case, inputs: dict[str, Array], dtype: torch.dtype = torch.float64) -> list[Array]:
    """y, conv state, SSM state of the reference, a token at a time."""
    t = {name: torch.from_numpy(value).to(dtype) for name, value in inputs.items() if name != "length"}
    parameters = MixerParameters(*(t[name] for name in MixerParameters._fields))
    length = torch.tensor(case.lengths)
    out = mamba2_mixer(t["projected"], parameters, None, length, t["conv_state"], t["ssm_state"], case.sizes)
    return [o.numpy() for o in out]


def worst(found: Array, expected: Array) -> float:
    """Relative RMS of the worst head (first axis); infinite for a NaN."""
    if not np.isfinite(found).all():
        return math.inf
    error = np.sqrt(((found - expected) ** 2).reshape(len(found), -1).sum(axis=1))
    return float((error / np.sqrt((expected**2).reshape(len(found), -1).sum(axis=1))).max())


def distances(case: Case, found: list[Array], expected: list[Array]) -> dict[str, float]:
    """Worst relative RMS of y and SSM state over rows and heads; largest difference of the conv state."""
    errors = {"y": 0.0, "ssm_state_out": 0.0, "conv_state_out": float(np.abs(found[1] - expected[1]).max())}
    for row, length in enumerate(case.lengths):
        y = [out[row, :length].reshape(length, case.H, case.P).swapaxes(0, 1) for out in (found[0], expected[0])]
        errors["y"] = max(errors["y"], worst(*y) if length else 0.0)
        errors["ssm_state_out"] = max(errors["ssm_state_out"], worst(found[2][row], expected[2][row]))
    return errors


def errors_of(case: Case, session: Callable[[bytes], Any], function: onnx.FunctionProto) -> dict[str, float]:
    """Errors of a body in onnxruntime. A row of length 0 keeps its SSM state bit for bit."""
    inputs = case.inputs()
    found = session(model_of(case, function)).run(None, inputs)
    for row, length in enumerate(case.lengths):
        assert length or found[2][row].tobytes() == inputs["ssm_state"][row].tobytes()
    return distances(case, found, expected_of(case, inputs))


@pytest.mark.parametrize("name", CASES)
def test_body_is_the_reference(name: str, session: Callable[[bytes], Any]) -> None:
    case = CASES[name]
    errors = errors_of(case, session, mixer_function(OPSET))
    inputs = case.inputs()
    float32 = distances(case, expected_of(case, inputs, torch.float32), expected_of(case, inputs))
    assert errors["conv_state_out"] == 0.0
    for output, tolerance in TOLERANCE.items():
        # Where the terms of a small head cancel, float32 itself has lost the digits, in whatever order.
        assert errors[output] <= max(tolerance, 4 * float32[output]), (errors, float32)


def test_tiny_time_steps_keep_their_digits(session: Callable[[bytes], Any]) -> None:
    """dt near 1e-6: log(1 + u) would keep one digit. One token, no state: the new state is dt · x ⊗ B."""
    case = Case(T=1, lengths=(1, 1), dt_bias=(-14.0, -13.5))
    inputs = case.inputs() | {"ssm_state": np.zeros((2, case.H, case.P, case.N), np.float32)}
    inputs["projected"][..., -case.H :] = 0.0
    found = session(model_of(case, mixer_function(OPSET))).run(None, inputs)[2]
    expected = expected_of(case, inputs)[2]
    assert 0 < np.abs(expected).max() < 1e-4
    assert max(worst(found[row], expected[row]) for row in range(2)) <= 2e-6


def test_a_huge_step_costs_no_digits_of_its_chunk(session: Callable[[bytes], Any]) -> None:
    """One step of dt·A = -480 among small ones: differences of a running sum would lose what the small ones do."""
    case = Case(T=64, lengths=(64,))
    inputs = case.inputs()
    inputs["dt_bias"][:], inputs["A_log"][:] = -5.0, math.log(16)
    inputs["projected"][:, 5, -case.H :] = 35.0
    found = session(model_of(case, mixer_function(OPSET))).run(None, inputs)
    expected = expected_of(case, inputs)
    y = [out[0].reshape(64, case.H, case.P).swapaxes(0, 1) for out in (found[0], expected[0])]
    assert max(worst(*y), worst(found[2][0], expected[2][0])) <= 1e-5


def test_absent_attributes_take_the_defaults_of_the_contract(session: Callable[[bytes], Any]) -> None:
    case, function = Case(dt_bias=(-9.0, 3.0)), mixer_function(OPSET)
    absent = session(model_of(case, function)).run(None, case.inputs())
    given = session(model_of(case, function, time_step_min=0.0, time_step_max=math.inf)).run(None, case.inputs())
    assert all(a.tobytes() == b.tobytes() for a, b in zip(absent, given, strict=True))
    assert {a.name for a in function.attribute_proto} == set(CONTRACT.defaults)
    assert list(function.attribute) == [name for name in CONTRACT.attributes if name not in CONTRACT.defaults]


def test_padding_leaves_no_trace(session: Callable[[bytes], Any]) -> None:
    """Junk behind `length` changes neither states nor real rows."""
    case = Case(T=9, lengths=(5, 0))
    run, inputs = session(model_of(case, mixer_function(OPSET))), case.inputs()
    clean = run.run(None, inputs)
    for row, length in enumerate(case.lengths):
        inputs["projected"][row, length:] *= -1e3
    junk = run.run(None, inputs)
    assert junk[1].tobytes() == clean[1].tobytes()
    assert junk[2].tobytes() == clean[2].tobytes()
    assert junk[0][0, :5].tobytes() == clean[0][0, :5].tobytes()


def test_prefill_is_decode(session: Callable[[bytes], Any]) -> None:
    """70 tokens at once and one by one: the same states, through the same body."""
    case = Case(lengths=(70,))
    run, inputs = session(model_of(case, mixer_function(OPSET))), case.inputs()
    whole = run.run(None, inputs)
    state = dict(inputs)
    for t in range(70):
        state |= {"projected": inputs["projected"][:, t : t + 1], "length": np.array([1])}
        y, state["conv_state"], state["ssm_state"] = run.run(None, state)
        assert worst(y[0, 0].reshape(case.H, -1), whole[0][0, t].reshape(case.H, -1)) <= 5e-4
    assert state["conv_state"].tobytes() == whole[1].tobytes()
    assert worst(state["ssm_state"][0], whole[2][0]) <= 2 * TOLERANCE["ssm_state_out"]


# --------------------------------------------------------------------------------------------------- broken bodies


Fault = Callable[[onnx.FunctionProto], None]


def reads(**instead: str) -> Fault:
    """Every reader of a value reads another one instead."""

    def apply(function: onnx.FunctionProto) -> None:
        assert {name for node in function.node for name in node.output} >= set(instead)
        for node in function.node:
            node.input[:] = [instead.get(name, name) for name in node.input]

    return apply


def computes(output: str, op_type: str | None = None, inputs: list[str] | None = None) -> Fault:
    """A value is computed by another op, or from other operands."""

    def apply(function: onnx.FunctionProto) -> None:
        [node] = [node for node in function.node if output in node.output]
        node.op_type = op_type or node.op_type
        node.input[:] = inputs or node.input

    return apply


#: fault -> (edit of the body, case, the outputs that must show it)
FAULTS: dict[str, tuple[Fault, Case, set[str]]] = {
    "swap B and C": (reads(B_flat="C_flat", C_flat="B_flat"), Case(), {"y", "ssm_state_out"}),
    "forget the D skip": (reads(y_skip="f0"), Case(), {"y"}),
    "length off by one": (computes("valid", "LessOrEqual"), Case(), {"ssm_state_out"}),
    "no clamp": (reads(dt_clamped="softplus"), Case(limits=(0.05, 0.2)), {"y", "ssm_state_out"}),
    "norm over all groups": (computes("norm_shape", inputs=["v0", "v0", "v1", "last"]), Case(), {"y"}),
    "no decay to the end of a chunk": (reads(to_end="log_decay"), Case(), {"ssm_state_out"}),
    "chunks do not decay": (reads(e_between="totals_before"), Case(T=200, lengths=(200, 190)), {"y"}),
    "decay of pairs the wrong way": (computes("later", "Less"), Case(), {"y"}),
    "pairs do not decay": (reads(between="steps_after_j"), Case(), {"y"}),
    "softplus without its tail": (reads(softplus="s_relu"), Case(), {"y", "ssm_state_out"}),
    "no conv bias": (reads(conv_0="f0"), Case(), {"y", "ssm_state_out"}),
    "no gate": (reads(silu="z"), Case(), {"y"}),
    "epsilon forgotten": (reads(mean_eps="mean"), Case(tiny=True), {"y"}),
    "conv state of other rows": (computes("state_rows", "Max"), Case(), {"conv_state_out"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_body_is_caught(fault: str, session: Callable[[bytes], Any]) -> None:
    """Each fault pushes at least the outputs named far out of tolerance."""
    edit, case, outputs = FAULTS[fault]
    function = mixer_function(OPSET)
    edit(function)
    errors = errors_of(case, session, function)
    for output in outputs:
        assert errors[output] > 100 * TOLERANCE.get(output, 1e-5), errors


def test_log_of_one_plus_u_would_be_caught(session: Callable[[bytes], Any]) -> None:
    """The naive softplus is out of tolerance where dt is tiny; why the body uses atanh."""
    case = replace(CASES["tiny dt"], T=1, lengths=(1, 1))
    function = mixer_function(OPSET)
    naive = [
        helper.make_node("Constant", [], ["f1"], value_float=1.0),
        helper.make_node("Add", ["u", "f1"], ["one_plus_u"]),
        helper.make_node("Log", ["one_plus_u"], ["log1p"]),
    ]
    nodes = list(function.node)
    [place] = [number for number, node in enumerate(nodes) if "log1p" in node.output]
    del function.node[:]
    function.node.extend([*nodes[:place], *naive, *nodes[place + 1 :]])
    inputs = case.inputs() | {"ssm_state": np.zeros((2, case.H, case.P, case.N), np.float32)}
    found = session(model_of(case, function)).run(None, inputs)[2]
    assert worst(found[0], expected_of(case, inputs)[2][0]) > 100 * TOLERANCE["ssm_state_out"]


def test_no_chunked_tensor_is_unsqueezed() -> None:
    """TensorRT-RTX's copy propagation is quadratic in such nodes, over all mixers of a model."""
    found = {node.output[0] for node in mixer_function(OPSET).node if node.op_type in ("Unsqueeze", "Squeeze")}
    sizes = {"G", "P", "N", "k_", "K_", "t_", "l_", "last_row", "chunks_", "ends_"}
    counted = {"first_rows_", "rows_", "index_i", "index_j", "number_from", "number_to_"}  # what a Range made
    of_rows = {"length_", "length_rows", "state_index", "moved_"}
    assert found == sizes | counted | of_rows | {"tap_weights"}  # the last is a weight: its shape is known
