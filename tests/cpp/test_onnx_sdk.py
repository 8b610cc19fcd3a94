"""The stand-in for onnxruntime's header has every function at its place, compared with the true one where it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "engines" / "cpp" / "src"


def _places(include: Path, names: list[str], folder: Path) -> str:
    lines = "".join(f'std::printf("%zu {name}\\n", offsetof(OrtApi, {name}));' for name in names)
    program = f"#include <cstddef>\n#include <cstdio>\n#include <onnxruntime_c_api.h>\nint main() {{{lines}}}\n"
    (folder / "places.cpp").write_text(program)
    subprocess.run(["g++", "-I", include, folder / "places.cpp", "-o", folder / "places"], check=True)
    return subprocess.run([folder / "places"], capture_output=True, text=True, check=True).stdout


def test_every_function_stands_where_onnxruntime_has_it(tmp_path: Path) -> None:
    root = os.environ.get("ELASTIC_ONNXRUNTIME_ROOT")
    if not root or not shutil.which("g++"):
        pytest.skip("ELASTIC_ONNXRUNTIME_ROOT names no onnxruntime with C headers, or no g++")
    ours = (HERE / "onnx_sdk" / "include" / "onnxruntime_c_api.h").read_text()
    names = re.findall(r"ORT_API_CALL\* (\w+)\)", ours.split("struct OrtApi {")[1].split("};")[0])
    true = next(path.parent for path in Path(root).rglob("onnxruntime_c_api.h"))
    wanted = _places(true, names, tmp_path)
    assert _places(HERE / "onnx_sdk" / "include", names, tmp_path) == wanted
    assert len(names) > 20


def test_every_function_that_is_called_is_there() -> None:
    ours = (HERE / "onnx_sdk" / "include" / "onnxruntime_c_api.h").read_text()
    called = {name for path in SOURCES.rglob("onnx_*") for name in re.findall(r"api\(\)\s*\.(\w+)", path.read_text())}
    assert len(called) > 20
    assert {name for name in called if f"* {name})" not in ours} == set()
