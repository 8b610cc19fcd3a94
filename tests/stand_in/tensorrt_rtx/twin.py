"""The stand-in's engine as a model that computes: the bundle's ONNX file in float32 arithmetic by onnxruntime.

Weights, states and tokens are read from the addresses that are bound, and outputs written there, in the interface's
dtypes: whatever the runtime uploads, binds or swaps wrongly gives other numbers.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

_DTYPES: dict[str, Any] = {
    "int64": np.int64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "bf16": ml_dtypes.bfloat16,
    "fp16": np.float16,
    "fp32": np.float32,
}


def become(world: Any, tensor: type, bundle: Path, engine: bytes) -> None:
    """Make the stand-in the engine of those bytes: its tensors and what a run does."""
    import onnx
    import onnxruntime

    from elastic_runtime.ort.twin import float32_twin

    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    digest = hashlib.sha256(engine).hexdigest()
    files = {entry["path"] for entry in manifest["files"] if entry["sha256"] == digest}
    budget, entry = next((b, e) for b in manifest["budgets"] for e in b["engines"] if e["file"] in files)
    fixed = {"B": -1, "T": -1, "S": entry["max_context"]}
    weights = json.loads((bundle / budget["weights"]).read_text("utf-8"))["inputs"]
    ports = {port["name"]: port for port in (*entry["inputs"], *entry["outputs"])}
    ports |= {name: {"name": name, **item} for name, item in weights.items()}
    world.tensors = [
        tensor(
            name,
            port not in entry["outputs"],
            tuple(fixed.get(dim, dim) for dim in port["shape"]),
            port["dtype"],
            aliased=port.get("input") if port.get("alias") == "must" else None,
        )
        for name, port in ports.items()
    ]
    world.max_tokens = entry["max_tokens"]
    twin = float32_twin(onnx.load(str(bundle / budget["model"])))
    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(twin.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = {port.name: port.type for port in session.get_inputs()}
    outputs = [port.name for port in session.get_outputs()]

    def compute(addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> None:
        sizes = {"B": shapes["input_ids"][0], "T": shapes["input_ids"][1], "S": entry["max_context"]}

        def bound(name: str) -> Any:
            shape = tuple(sizes.get(dim, dim) for dim in ports[name]["shape"])
            dtype = np.dtype(_DTYPES[ports[name]["dtype"]])
            memory = (ctypes.c_uint8 * (math.prod(shape) * dtype.itemsize)).from_address(addresses[name])
            return np.frombuffer(memory, dtype).reshape(shape)

        def value(name: str, kind: str) -> Any:
            if kind == "tensor(bfloat16)":  # which numpy does not know
                bits = bound(name).view(np.uint16).copy()
                return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, onnx.TensorProto.BFLOAT16)
            dtype = {"tensor(int64)": np.int64, "tensor(float16)": np.float16}.get(kind, np.float32)
            return onnxruntime.OrtValue.ortvalue_from_numpy(bound(name).astype(dtype))

        fed = {name: value(name, kind) for name, kind in inputs.items()}
        for name, made in zip(outputs, session.run_with_ort_values(None, fed), strict=True):
            bound(name)[...] = made.numpy()  # after all were read: an output may lie where an input does

    driver, recorded = ctypes.CDLL("libcuda.so.1"), []

    def run(profile: int, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> None:
        if not driver.fake_capturing():
            compute(addresses, shapes)
            return
        recorded.append(ctypes.CFUNCTYPE(None)(lambda: compute(addresses, shapes)))  # kept: C holds its address
        driver.fake_on_launch(recorded[-1])

    world.run = run
