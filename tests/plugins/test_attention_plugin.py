"""CachedAttention as TensorRT meets it in the library: fields, shapes, types and aliases, good and bad."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from library_build import HEADERS, needs_nvcc, one_worker

pytestmark = [
    one_worker,
    needs_nvcc,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        HEADERS is None, reason="neither TENSORRT_RTX_ROOT nor TENSORRT_ROOT is set: the TensorRT glue was not built"
    ),
]


def ask(built_library: Path, *words: str) -> list[str]:
    program = [str(built_library / "attention_probe"), *words]
    return subprocess.run(program, capture_output=True, text=True, check=True).stdout.splitlines()


def test_good_attention_is_accepted(built_library: Path) -> None:
    memory = 4 * 32768 * (64 + 2)  # workspace_floats of limits.h
    assert ask(built_library) == [
        "create: done",
        "configure: 0",
        f"workspace: {memory}",
        "formats: 1 1 1 1 1 1 1 1 1",
        "alias: -1 3 4",
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("head_dim=none",), "attribute head_dim: expected a value, found none"),
        (("head_dim=64.0",), "attribute head_dim: expected int32, found field type 1"),
        (("scale=1",), "attribute scale: expected float32, found field type 5"),
        (("num_heads=0",), "attribute num_heads: expected 1 to 2147483647, found 0"),
        (("num_heads=9",), "num_heads: expected a multiple of 2, num_key_value_heads, found 9"),
        (("head_dim=20",), "head_dim: expected a multiple of 8, found 20"),
        (("head_dim=264",), "attribute head_dim: expected 1 to 256, found 264"),
        (("scale=nan",), "attribute scale: expected a number, found NaN"),
        (("scale=-0.5",), "scale: expected a finite number above 0, found -0.500000"),
        (("scale=inf",), "scale: expected a finite number above 0, found inf"),
        (("window=7",), "attributes: expected num_heads, num_key_value_heads, head_dim, scale, found window"),
    ],
)
def test_bad_fields_are_refused(built_library: Path, words: tuple[str, ...], text: str) -> None:
    assert ask(built_library, *words) == [f"log: CachedAttention: {text}", "create: refused"]


def test_bad_tensors_are_refused(built_library: Path) -> None:
    for index in range(6):  # the last dimension of each input, one too large
        log, configured = ask(built_library, f"wrong={index}")[1:3]
        assert log.startswith("log: CachedAttention: shape of "), log
        assert ": expected [" in log, log
        assert configured == "configure: -1"
    assert "log: CachedAttention: inputs: expected 6, found 5" in ask(built_library, "count=5")
    float32, half, int32 = 0, 1, 3
    for index, code in ((0, float32), (1, half), (3, half), (5, int32), (6, half), (8, half)):
        formats = next(line for line in ask(built_library, f"type={index}:{code}") if line.startswith("formats"))
        assert formats.split()[1 + index] == "0", (index, formats)


def test_a_call_of_refused_shapes_is_not_run(built_library: Path) -> None:
    """Not as the one before it either, whose shapes its buffers do not have."""
    assert ask(built_library, "call=refused") == [
        "create: done",
        "shapes: 0",
        "log: CachedAttention: shape of key: expected [1, 1, 128], found [1, 1, 129]",
        "shapes: -1",
        "log: CachedAttention: call: expected shapes that onShapeChange took, found none",
        "enqueue: -1",
    ]
