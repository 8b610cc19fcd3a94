"""Nothing stands in the way of a Windows build: MinGW compiles and links it, SDKs are found by their names there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CPP = Path(__file__).parents[2] / "engines" / "cpp"
_MINGW = "x86_64-w64-mingw32-g++"
#: The one with threads of POSIX, where the system has both: before GCC 13 the other has no std::thread.
COMPILER = next(filter(shutil.which, (f"{_MINGW}-posix", _MINGW)), _MINGW)


def _run(*command: object) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not shutil.which(COMPILER) or not shutil.which("cmake"), reason=f"no {COMPILER} or no cmake")
def test_library_and_program_cross_compile(tmp_path: Path, json_folder: Path) -> None:
    alone = tmp_path / "json"  # beside the headers of this system it would bring those too
    alone.mkdir()
    (alone / "nlohmann").symlink_to(json_folder / "nlohmann")
    _run(
        "cmake", "-S", CPP, "-B", tmp_path, "-DCMAKE_SYSTEM_NAME=Windows", f"-DCMAKE_CXX_COMPILER={COMPILER}",
        "-DBUILD_SHARED_LIBS=ON", "-DELASTIC_BUILD_TESTS=OFF", f"-DELASTIC_JSON_INCLUDE={alone}",
        "-DELASTIC_PCRE2=OFF",  # this system's would be found
        "-DCMAKE_CXX_FLAGS=-Werror",
    )  # fmt: skip
    _run("cmake", "--build", tmp_path, "--parallel", os.cpu_count() or 2)
    assert (tmp_path / "elastic_generate.exe").is_file()
    assert (tmp_path / "libelastic_runtime.dll").is_file()


FIND = """
cmake_minimum_required(VERSION 3.24)
project(find NONE)
set(CMAKE_FIND_LIBRARY_PREFIXES "")
set(CMAKE_FIND_LIBRARY_SUFFIXES ".lib")
list(APPEND CMAKE_MODULE_PATH "{modules}")
find_package(TensorRT REQUIRED)
message(STATUS "found ${{TensorRT_FLAVOUR}} ${{TensorRT_LIBRARY}}")
"""


@pytest.mark.skipif(not shutil.which("cmake"), reason="no cmake")
@pytest.mark.parametrize(
    ("option", "names", "wanted"),
    [
        ("TENSORRT_RTX_ROOT", ["tensorrt_rtx_1_7.lib", "tensorrt_onnxparser_rtx_1_7.lib"], "tensorrt_rtx_1_7.lib"),
        ("TENSORRT_RTX_ROOT", ["tensorrt_rtx_1_9.lib", "tensorrt_rtx_1_10.lib"], "tensorrt_rtx_1_10.lib"),
        ("TENSORRT_ROOT", ["nvinfer_10.lib", "nvinfer_plugin_10.lib"], "nvinfer_10.lib"),
    ],
)
def test_the_sdks_are_found_by_their_versioned_names(
    tmp_path: Path, option: str, names: list[str], wanted: str
) -> None:
    for name in ("include/NvInferRuntime.h", *(f"lib/{name}" for name in names)):
        (tmp_path / "sdk" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sdk" / name).touch()
    (tmp_path / "CMakeLists.txt").write_text(FIND.format(modules=CPP / "cmake"))
    said = _run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-D{option}={tmp_path / 'sdk'}")
    flavour = "tensorrt-rtx" if "RTX" in option else "tensorrt"
    assert f"found {flavour} {tmp_path}/sdk/lib/{wanted}" in said
