"""The C++ of the pages in engines/: built against the installed library as a reader builds it, and run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "engines" / "README.md").read_text("utf-8")
CMAKE = """
cmake_minimum_required(VERSION 3.24)
project(reader CXX)
find_package(elastic_runtime 0.1 REQUIRED)
foreach(page reader example)
  add_executable(${page} ${page}.cpp)
  target_compile_options(${page} PRIVATE -Wall -Wextra -Werror)
  target_link_libraries(${page} PRIVATE elastic_runtime::elastic_runtime)
endforeach()
"""
EXAMPLE = """
#include <iostream>

#include "elastic_runtime/generate.h"
#include "elastic_runtime/opening.h"

int main() {
%s
  std::cout << made[0].text;
}
"""


def _program() -> str:
    (found,) = re.findall(r"```cpp\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def _example() -> str:
    page = (Path(__file__).parents[2] / "engines" / "cpp" / "README.md").read_text("utf-8")
    (found,) = re.findall(r"^(?: {4}.*\n)+", page[page.index("| header |") : page.index("Every error")], re.MULTILINE)
    return EXAMPLE % found


@pytest.fixture(scope="module")
def reader(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    (folder / "reader.cpp").write_text(_program())
    (folder / "example.cpp").write_text(_example())
    (folder / "CMakeLists.txt").write_text(CMAKE)
    prefix = folder / "prefix"
    for command in (
        ["cmake", "--install", built, "--prefix", prefix],
        ["cmake", "-S", folder, "-B", folder / "build", f"-DCMAKE_PREFIX_PATH={prefix}"],
        ["cmake", "--build", folder / "build"],
    ):
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder / "build" / "reader"


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)


def test_it_is_of_forty_lines() -> None:
    lines = [line for line in _program().splitlines() if line.strip() and not line.startswith(("#include", "//"))]
    assert len(lines) <= 40


@pytest.mark.timeout(900)
def test_it_runs_a_budget_with_its_twin(reader: Path, host_program: Path, demo_bundle: Path, twins: Path) -> None:
    done = _run(reader, demo_bundle, "small", twins / "small.onnx")
    assert done.returncode == 0
    assert re.fullmatch(".*: running on the CPU with onnxruntime, .*\n", done.stderr)
    options = ("--temperature", 0.7, "--seed", 1, "--max-new", 32, "--context", 2048)
    common = ("--device", "cpu", "--budget", "small", "--model", twins / "small.onnx", "--prompt", "Hello")
    wanted = _run(host_program, demo_bundle, *common, *options)
    assert done.stdout == wanted.stdout != "\n"


@pytest.mark.timeout(900)
def test_it_takes_the_largest_budget_of_a_float32_bundle(reader: Path, host_program: Path, wide_bundle: Path) -> None:
    done = _run(reader, wide_bundle)
    assert done.returncode == 0
    assert re.fullmatch(".*: running on the CPU with onnxruntime, .*\n", done.stderr)
    options = ("--temperature", 0.7, "--seed", 1, "--max-new", 32, "--context", 2048)
    wanted = _run(host_program, wide_bundle, "--device", "cpu", "--budget", "large", "--prompt", "Hello", *options)
    assert done.stdout == wanted.stdout != "\n"


@pytest.mark.timeout(900)
def test_it_says_what_a_16_bit_bundle_needs(reader: Path, host_program: Path, demo_bundle: Path) -> None:
    done = _run(reader, demo_bundle)
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected a float32 model for onnxruntime's CPU, found bf16. Name its float32 twin" in done.stderr


@pytest.mark.timeout(900)
def test_the_example_of_the_librarys_page_runs(reader: Path, host_program: Path, small: tuple[object, ...]) -> None:
    _, bundle, *_, twin = small
    (folder := reader.parent / "clone" / "engines").mkdir(parents=True)
    (folder / "elastic-demo").symlink_to(str(bundle))
    (folder.parent / "small.onnx").symlink_to(str(twin))
    done = subprocess.run([reader.parent / "example"], cwd=folder.parent, capture_output=True, text=True, check=False)
    wanted = _run(*small, "--prompt", "Once upon", "--ignore-eos")
    assert (done.returncode, done.stdout + "\n", done.stderr.count("\n")) == (0, wanted.stdout, 0)
