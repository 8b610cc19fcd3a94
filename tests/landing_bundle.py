"""A bundle of the stand-in's engine (fake_sdk/fake_engine.cpp), whose model.onnx computes the same: the logits peak at
(the sum of the tokens + how many they were + w[1][1]) modulo the vocabulary.

As an export with `--ops auto` leaves it: a plugin engine and a native one for one card.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from elastic_runtime.format.seal import EMPTY, seal

VOCAB, CONTEXT, PEAK = 16, 20, 5
NATIVE, PLUGIN = b"engine", b"engine-of-plugins"
_PORTS = {"conv_state.0": ["B", 1, 1], "ssm_state.0": ["B", 1, 1, 1], "key_cache.0": ["B", 1, "S", 1]}


def write_bundle(folder: Path, *, carried: bytes | None = None, inside: bytes | None = None) -> Path:
    """Write it.

    Args:
        folder: where; it is made.
        carried: the plugin library that the manifest says is inside the plugin engine; None: it needs one beside it.
        inside: what is there in its place.
    """
    (folder / "b").mkdir(parents=True)
    held = (inside if inside is not None else carried) or b""
    files = {
        "b/p.engine": PLUGIN + held,
        "b/n.engine": NATIVE,
        "b/model.onnx": _model().SerializeToString(),
        "b/parent.bin": np.arange(1, 10, dtype=np.float32).tobytes(),
        "b/weights.json": json.dumps({"schema": "elastic-weights/1", "inputs": {"w": _WEIGHT}}).encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    entries = [{"path": n, "size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()]
    manifest = {**_HEAD, "budgets": [{**_BUDGET, "engines": [_plugin_engine(carried), _engine("b/n.engine")]}]}
    text = json.dumps({**manifest, "files": entries, "external_weights": []})
    (folder / "manifest.json").write_text(seal(text), "utf-8")
    return folder


def expected_ids(prompt: list[int], count: int) -> list[int]:
    """The greedy ids that follow."""
    ids = list(prompt)
    for _ in range(count):
        ids.append((sum(ids) + len(ids) + PEAK) % VOCAB)
    return ids[len(prompt) :]


_WEIGHT = {
    "file": "parent.bin",
    "offset": 0,
    "dtype": "fp32",
    "parent_shape": [3, 3],
    "shape": [2, 2],
    "runs": [[[0, 2]], [[0, 2]]],
}
_HEAD = {
    "schema": "elastic-bundle/1",
    "seal": EMPTY,
    "producer": "test",
    "demo": False,
    "checkpoint": {"name": "p", "fingerprint": "f"},
    "precision": "fp32",
    "weight_mode": "shared",
    "logits": "last",
    "options": {},
    "versions": {},
    "rules": [],
}
_WIDTHS = {
    "vocab_size": VOCAB,
    "hidden_size": 2,
    "ffn_sizes": [],
    "mamba_heads": [1],
    "mamba_head_dim": 1,
    "ssm_groups": 1,
    "ssm_state": 1,
    "conv_kernel": 2,
    "attention_heads": 1,
    "kv_heads": 1,
    "attention_head_dim": 1,
}
_BUDGET: dict[str, Any] = {
    "name": "b",
    "parameters": 4,
    "pattern": "M*",
    "layers": 2,
    "kept_layers": [0, 1],
    "widths": _WIDTHS,
    "scalar_widths": True,
    "weight_bytes": 16,
    "state_bytes": 8,
    "kv_bytes_per_token": 4,
    "states": [],
    "model": "b/model.onnx",
    "weights": "b/weights.json",
    "golden": None,
    "report": None,
}


def _engine(file: str) -> dict[str, Any]:
    outputs = [_port("logits", ["B", VOCAB]) | {"input": None, "alias": None}]
    for name, shape in _PORTS.items():
        shared = "must_not" if name.startswith("conv") else "must"
        outputs.append(_port(name.replace(".", "_out."), shape) | {"input": name, "alias": shared})
    return {
        "target": "rtx",
        "compute_capabilities": ["8.9", "12.0"],
        "file": file,
        "flavour": "tensorrt-rtx",
        "version": "1.7.1.116",
        "ops": "native",
        "plugin": None,
        "max_context": CONTEXT,
        "max_tokens": 4,
        "max_batch": 3,
        "inputs": [_port(name, shape) for name, shape in _PORTS.items()],
        "outputs": outputs,
        "activation": 512,
        "activation_measured": False,
        "status": {"state": "built", "card": None, "date": None},
        "fits": {
            "context": CONTEXT,
            "batch": 1,
            "weights": 16,
            "states": 8,
            "caches": 80,
            "activation": 512,
            "activation_measured": False,
            "reserve": 1,
            "total": 617,
            "usable": None,
            "enough": None,
        },
    }


def _plugin_engine(carried: bytes | None) -> dict[str, Any]:
    plugin: dict[str, Any] = {"library": "libelastic_plugins.so", "abi": "rtx-1.7"}
    if carried is not None:
        plugin["carried"] = {
            "file": "libelastic_plugins.sm120.so",
            "size": len(carried),
            "sha256": hashlib.sha256(carried).hexdigest(),
            "abi": "rtx-1.7",
            "architectures": ["120-real"],
        }
    return _engine("b/p.engine") | {"ops": "plugin", "plugin": plugin}


def _port(name: str, shape: list[Any]) -> dict[str, Any]:
    return {"name": name, "dtype": "float32", "shape": shape}


def _model() -> onnx.ModelProto:
    """One row: the sum of its tokens is in the convolution's state, their number in the SSM's."""
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["ids", "axis1"], ["sum"], keepdims=1),
        helper.make_node("Unsqueeze", ["sum", "axis2"], ["sum3"]),
        helper.make_node("Add", ["conv_state.0", "sum3"], ["conv_state_out.0"]),
        helper.make_node("Cast", ["length"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["count", "column4"], ["count4"]),
        helper.make_node("Add", ["ssm_state.0", "count4"], ["ssm_state_out.0"]),
        helper.make_node("Identity", ["key_cache.0"], ["key_cache_out.0"]),
        helper.make_node("Reshape", ["conv_state_out.0", "column2"], ["sum2"]),
        helper.make_node("Reshape", ["ssm_state_out.0", "column2"], ["count2"]),
        helper.make_node("Gather", ["w", "one"], ["row"], axis=0),
        helper.make_node("Gather", ["row", "one"], ["corner"], axis=0),
        helper.make_node("Sum", ["sum2", "count2", "corner"], ["peak"]),
        helper.make_node("Cast", ["peak"], ["peak_id"], to=TensorProto.INT64),
        helper.make_node("Mod", ["peak_id", "vocabulary"], ["id"]),
        helper.make_node("Equal", ["id", "every_id"], ["is_peak"]),
        helper.make_node("Cast", ["is_peak"], ["logits"], to=TensorProto.FLOAT),
    ]
    constants = {
        "axis1": [1],
        "axis2": [2],
        "column2": [-1, 1],
        "column4": [-1, 1, 1, 1],
        "vocabulary": [VOCAB],
        "every_id": list(range(VOCAB)),
    }
    initializers = [helper.make_tensor(n, TensorProto.INT64, [len(v)], v) for n, v in constants.items()]
    initializers.append(helper.make_tensor("one", TensorProto.INT64, [], [1]))
    tokens = {"input_ids": ["B", "T"], "position": ["B"], "length": ["B"]}
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, s) for n, s in tokens.items()]
    inputs += [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in {**_PORTS, "w": [2, 2]}.items()]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", VOCAB])]
    for name, shape in _PORTS.items():
        outputs.append(helper.make_tensor_value_info(name.replace(".", "_out."), TensorProto.FLOAT, shape))
    graph = helper.make_graph(nodes, "landing", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
