"""libelastic_plugins.so: built by CMake, legible without loading, and as good a declaration as the Python one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from library_build import ARCHITECTURE, HEADERS, cmake, needs_nvcc, one_worker
from mamba2_mixer.library import MixerError, MixerLibrary, Shape, read_abi
from mamba2_mixer.testing.runner import PLUGINS
from mixer_model import mixer_request

from elastic_export.engine.process import build_engine

pytestmark = one_worker
needs_headers = pytest.mark.skipif(
    HEADERS is None, reason="neither TENSORRT_RTX_ROOT nor TENSORRT_ROOT is set: the TensorRT glue was not built"
)


@needs_nvcc
def test_without_headers_all_but_the_glue_is_built_and_says_so(tmp_path: Path) -> None:
    bare = {k: v for k, v in os.environ.items() if not k.startswith("TENSORRT")}
    said = cmake("-S", str(PLUGINS), "-B", str(tmp_path), environment=bare)
    assert "TensorRT plugins: NO, only the C interface: NvInferRuntime.h was not found; set TENSORRT_RTX_ROOT" in said


@needs_nvcc
@pytest.mark.timeout(900)
def test_abi_is_read_without_loading(library: Path, tmp_path: Path) -> None:
    abi = read_abi(library)
    assert abi == json.loads(MixerLibrary(library).abi())
    assert abi["ops"] == {"Mamba2Mixer": "1"}
    assert abi["architectures"] == f"{ARCHITECTURE}-real"
    other = tmp_path / "other.so"
    other.write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(MixerError, match="expected the mark elastic-plugins-abi/1, found none"):
        read_abi(other)


@needs_nvcc
@pytest.mark.timeout(900)
def test_failures_of_cuda_come_back_as_text(library: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("there is a GPU driver: the device answers")
    with pytest.raises(MixerError, match="Mamba2Mixer: multiprocessors of the current device: "):
        MixerLibrary(library).plan(Shape(1, 1, 8, 20, 2, 16, 4))


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """plugin_probe, which asks the built plugin what TensorRT would."""
    build = tmp_path_factory.mktemp("probe")
    cmake("-S", str(PLUGINS), "-B", str(build), f"-DELASTIC_ARCHITECTURES={ARCHITECTURE}-real")
    cmake("--build", str(build), "--target", "plugin_probe")
    return build / "plugin_probe"


def ask(probe: Path, *words: str) -> list[str]:
    return subprocess.run([str(probe), *words], capture_output=True, text=True, check=True).stdout.splitlines()


@needs_nvcc
@needs_headers
@pytest.mark.timeout(900)
def test_good_mixer_is_accepted(probe: Path) -> None:
    memory = 4 * (2 * 7 * 8 + 2 * 7 * 224)
    assert ask(probe) == [
        "create: done",
        "configure: 0",
        f"workspace: {memory}",
        "formats: 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "alias: -1 -1 9",
    ]


@needs_nvcc
@needs_headers
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["n_groups=0"], "attribute n_groups: expected 1 to 2147483647, found 0"),
        (["head_dim=none"], "attribute head_dim: expected a value, found none"),
        (["head_dim=300"], "attribute head_dim: expected 1 to 256, found 300"),
        (["state_size=257"], "attribute state_size: expected 1 to 256, found 257"),
        (["head_dim=20.0"], "attribute head_dim: expected int32, found field type 1"),
        (["epsilon=nan"], "attribute epsilon: expected a number, found NaN"),
        (["epsilon=-1.0"], "attribute epsilon: expected 0 or more, found -1.000000"),
        (
            ["chunk=64"],
            "attributes: expected n_groups, head_dim, state_size, epsilon, time_step_min, time_step_max, found chunk",
        ),
        (
            ["time_step_min=2.0", "time_step_max=1.0"],
            "attribute time_step_min: expected at most time_step_max 1.000000, found 2.000000",
        ),
    ],
)
def test_bad_attributes_are_refused_at_creation(probe: Path, words: list[str], text: str) -> None:
    assert ask(probe, *words) == [f"log: Mamba2Mixer: {text}", "create: refused"]


@needs_nvcc
@needs_headers
@pytest.mark.timeout(900)
def test_bad_tensors_are_refused(probe: Path) -> None:
    for index in range(10):  # the last dimension of each input, one too large
        log, configured = ask(probe, f"wrong={index}")[1:3]
        assert log.startswith("log: Mamba2Mixer: "), log
        assert ": expected " in log, log
        assert configured == "configure: -1"
    assert "log: Mamba2Mixer: inputs: expected 10, found 9" in ask(probe, "count=9")
    half, int32 = 1, 3
    for index, code in ((0, int32), (1, half), (3, half), (7, int32), (9, half), (10, half), (12, half)):
        formats = next(line for line in ask(probe, f"type={index}:{code}") if line.startswith("formats"))
        assert formats.split()[1 + index] == "0", (index, formats)


@needs_nvcc
@needs_headers
@pytest.mark.timeout(900)
def test_engine_of_the_library_is_the_engine_of_the_python_declaration(library: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    shutil.copy(Path(__file__).parent / "plugin_library_creator.py", tmp_path)
    (tmp_path / "library_path").write_text(str(library))
    engines = {}
    creators = {"python": "elastic_export.ops.mamba2_mixer.creator:create", "library": "plugin_library_creator:create"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        for name, creator in creators.items():
            facts = build_engine(mixer_request(tmp_path, output=f"{name}.engine", creator=creator))
            assert facts.plugin_layers == {"Mamba2Mixer": 1}
            engines[name] = (tmp_path / f"{name}.engine").read_bytes()
    assert engines["python"] == engines["library"]
