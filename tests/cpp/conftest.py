"""One build of engines/cpp a test run, without CUDA and TensorRT.

With ELASTIC_CPP_SANITIZE=1 it is built file by file, as a user does, with the address and undefined-behaviour
sanitizers: so does `.ci/run`, and only so a missing include is found. Without, it takes less than half the time: the
files of a target are compiled as one, without debug information.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from elastic_runtime import Bundle

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "engines" / "cpp"
SANITIZED = ("-DELASTIC_SANITIZE=ON", "-DCMAKE_UNITY_BUILD=OFF", "-DCMAKE_CXX_FLAGS_DEBUG=-g")
UNITY = ("-DCMAKE_UNITY_BUILD=ON", "-DCMAKE_UNITY_BUILD_BATCH_SIZE=0")  # 0: no bound on a target's files in one
QUICK = ("-DELASTIC_SANITIZE=OFF", *UNITY, "-DCMAKE_CXX_FLAGS_DEBUG=-g0")


def json_include() -> Path | None:
    """The folder of nlohmann/json.hpp: of the Python package that brings it, else of the system."""
    package = importlib.util.find_spec("nlohmann_json")
    folders = [Path(place) / "include" for place in (package.submodule_search_locations or ())] if package else []
    folders += [Path("/usr/include"), Path("/usr/local/include")]
    return next((folder for folder in folders if (folder / "nlohmann" / "json.hpp").is_file()), None)


def missing() -> str:
    """Why nothing can be built here; empty where it can."""
    if not shutil.which("cmake"):
        return "no cmake on the path"
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++")):
        return "no C++ compiler on the path"
    found = json_include() or os.environ.get("CMAKE_PREFIX_PATH")
    return "" if found else "no nlohmann/json.hpp: pip install nlohmann-json"


def onnxruntime_root(folder: Path) -> Path | None:
    """A folder with include/ and lib/ of onnxruntime: ELASTIC_ONNXRUNTIME_ROOT, else the library of the Python package
    beside our declarations of it (onnx_sdk/), made in `folder`."""
    if root := os.environ.get("ELASTIC_ONNXRUNTIME_ROOT"):
        return Path(root)
    package = importlib.util.find_spec("onnxruntime")
    places = [Path(place) / "capi" for place in (package.submodule_search_locations or ())] if package else []
    library = next((path for place in places for path in place.glob("libonnxruntime.so.*")), None)
    if library is None:
        return None
    (folder / "lib").mkdir(parents=True, exist_ok=True)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):  # to link with, and what the linked program asks for
        link = folder / "lib" / name
        link.unlink(missing_ok=True)
        link.symlink_to(library)
    shutil.copytree(HERE / "onnx_sdk" / "include", folder / "include", dirs_exist_ok=True)
    return folder


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Standard output of a command that succeeds."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (
        f"{command[0]} ended with {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    )
    return done.stdout


@pytest.fixture(scope="session")
def json_folder() -> Path:
    """The folder of nlohmann/json.hpp."""
    found = json_include()
    if found is None:
        pytest.skip("no nlohmann/json.hpp: pip install nlohmann-json")
    return found


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build folder, one for all workers of pytest-xdist; ELASTIC_CPP_BUILD names one to keep between runs.

    Beside it lies `shared`, where the library is installed as a shared one.
    """
    if reason := missing():
        pytest.skip(reason)
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    kept = os.environ.get("ELASTIC_CPP_BUILD")
    folder = Path(kept) if kept else shared / "cpp"
    with (shared / "cpp.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = shared / "cpp.built"
        if not done.exists():
            _build(folder)
            done.touch()
    return folder / "build"


def _build(folder: Path) -> None:
    include, root = json_include(), onnxruntime_root(folder / "onnxruntime")  # outside of the build, as a user's is
    options = [f"-DELASTIC_JSON_INCLUDE={include}"] if include else []
    options += [f"-DELASTIC_ONNXRUNTIME_ROOT={root}"] if root else []
    generator = ("-G", "Ninja") if shutil.which("ninja") else ()
    kind = {"": QUICK, "0": QUICK, "1": SANITIZED}[os.environ.get("ELASTIC_CPP_SANITIZE", "")]
    options += ["-DCMAKE_BUILD_TYPE=Debug", *kind]
    build, prefix = folder / "build", folder / "shared"
    configure = ("cmake", "-S", SOURCE, "-B", build, *generator, *options)
    make = ("cmake", "--build", build, "--parallel", str(os.cpu_count() or 2))
    run(*configure)
    run(*make)
    # A shared library too, of the same objects, in a folder named whole as some packagers do; then back.
    places = (f"-DCMAKE_INSTALL_PREFIX={prefix}", f"-DCMAKE_INSTALL_LIBDIR={prefix / 'lib'}")
    run(*configure, "-DBUILD_SHARED_LIBS=ON", *places)
    run(*make, "--target", "elastic_runtime", "elastic_generate")
    run("cmake", "--install", build)
    run(*configure, "-DBUILD_SHARED_LIBS=OFF", "-UCMAKE_INSTALL_LIBDIR")
    run(*make)


@pytest.fixture(scope="session")
def program(built: Path) -> Path:
    return built / "elastic_generate"


@pytest.fixture(scope="session")
def host_program(program: Path) -> Path:
    cache = (program.parent / "CMakeCache.txt").read_text()
    if "ELASTIC_ONNXRUNTIME_ROOT:PATH=\n" in cache:
        pytest.skip("no onnxruntime library: it was built without")
    return program


@pytest.fixture(scope="session")
def int8_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Two budgets of random_demo.py's model in eight bits."""
    from int8_demo import BUDGETS, export_demo

    out = tmp_path_factory.mktemp("int8") / "bundle"
    export_demo(out, BUDGETS, quantise="int8")
    return Bundle.open(out)


@pytest.fixture(scope="session")
def wide_bundle(demo_bundle: Path, twins: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo as a bundle whose models onnxruntime's CPU runs as they are: its twins in place of its models."""
    from elastic_runtime.format.seal import EMPTY, seal

    copy = tmp_path_factory.mktemp("wide") / "bundle"
    shutil.copytree(demo_bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text("utf-8")) | {"precision": "fp32", "seal": EMPTY}
    files = {entry["path"]: entry for entry in manifest["files"]}
    for budget in manifest["budgets"]:
        data = (twins / f"{budget['name']}.onnx").read_bytes()
        (copy / budget["model"]).unlink()
        (copy / budget["model"]).write_bytes(data)
        files[budget["model"]] |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (copy / "manifest.json").write_text(seal(json.dumps(manifest)), "utf-8")
    return copy


@pytest.fixture(scope="session")
def twins(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float32 twin of every budget's model, `<budget>.onnx`."""
    onnx = pytest.importorskip("onnx")
    from elastic_runtime.ort.twin import float32_twin

    folder = tmp_path_factory.mktemp("twins")
    for budget in Bundle.open(demo_bundle).budgets:
        model = onnx.load(str(demo_bundle / budget.model), load_external_data=False)
        onnx.save(float32_twin(model), str(folder / f"{budget.name}.onnx"))
    return folder


@pytest.fixture(scope="session")
def small(host_program: Path, demo_bundle: Path, twins: Path) -> tuple[object, ...]:
    """The command that runs the demo's small budget on the CPU."""
    return host_program, demo_bundle, "--device", "cpu", "--budget", "small", "--model", twins / "small.onnx"
