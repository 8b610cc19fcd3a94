"""One build of engines/cpp a session, as a user without CUDA and TensorRT makes it, with the sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "engines" / "cpp"
HEADER = any(Path(p, "nlohmann", "json.hpp").exists() for p in ("/usr/include", "/usr/local/include"))


def _missing() -> str:
    if not shutil.which("cmake"):
        return "no cmake on the path"
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++")):
        return "no C++ compiler on the path"
    return "" if HEADER or os.environ.get("CMAKE_PREFIX_PATH") else "nlohmann-json is not installed"


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (
        f"{command[0]} ended with {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    )
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build folder; ELASTIC_CPP_BUILD names one to keep between runs."""
    if reason := _missing():
        pytest.skip(reason)
    kept = os.environ.get("ELASTIC_CPP_BUILD")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("cpp")
    root = os.environ.get("ELASTIC_ONNXRUNTIME_ROOT")
    host = (f"-DELASTIC_ONNXRUNTIME_ROOT={root}",) if root else ()
    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    _run("cmake", "-S", SOURCE, "-B", folder, *generator, "-DCMAKE_BUILD_TYPE=Debug", "-DELASTIC_SANITIZE=ON", *host)
    _run("cmake", "--build", folder, "--parallel", "2")
    return folder
