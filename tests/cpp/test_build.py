"""Configures, builds, tests and installs engines/cpp without CUDA and TensorRT."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    """Standard output of a command that succeeds."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (
        f"{command[0]} ended with {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    )
    return done.stdout


@pytest.mark.timeout(900)
def test_the_suite_passes(built: Path) -> None:
    sanitized = "ELASTIC_SANITIZE:BOOL=ON" in (built / "CMakeCache.txt").read_text()
    assert sanitized == (os.environ.get("ELASTIC_CPP_SANITIZE") == "1")
    assert "100% tests passed" in _run("ctest", "--output-on-failure", cwd=built)


CONSUMER = """
#include <cstdio>
#include "elastic_runtime/bundle.h"

int main() {
  try {
    elastic::Bundle::open("no/such/folder");
  } catch (const elastic::Error& error) {
    std::puts(error.what());
    return error.exit_code();
  }
}
"""
CONSUMER_CMAKE = """
cmake_minimum_required(VERSION 3.24)
project(consumer CXX)
find_package(elastic_runtime 0.1 REQUIRED)
add_executable(consumer consumer.cpp)
target_link_libraries(consumer PRIVATE elastic_runtime::elastic_runtime)
"""


@pytest.mark.timeout(900)
def test_a_shared_library_is_linked_with_and_its_program_starts(host_program: Path, tmp_path: Path) -> None:
    """Onnxruntime lies where no loader looks for it."""
    _consume(host_program.parents[1] / "shared", tmp_path)


@pytest.mark.timeout(900)
def test_an_installed_library_is_found_and_linked(built: Path, tmp_path: Path) -> None:
    _run("cmake", "--install", built, "--prefix", tmp_path / "prefix")
    _consume(tmp_path / "prefix", tmp_path)


def _consume(prefix: Path, tmp_path: Path) -> None:
    assert "elastic_generate, version" in _run(prefix / "bin" / "elastic_generate", "--version")
    (tmp_path / "consumer.cpp").write_text(CONSUMER)
    (tmp_path / "CMakeLists.txt").write_text(CONSUMER_CMAKE)
    _run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    _run("cmake", "--build", tmp_path / "build")
    done = subprocess.run([tmp_path / "build" / "consumer"], capture_output=True, text=True, check=False)
    wanted = "no/such/folder: expected a bundle, found no such folder. Name the folder that elastic-export wrote.\n"
    assert (done.stdout, done.returncode) == (wanted, 2)
