"""libelastic_plugins.so: built by CMake, legible without loading, and as good a declaration as the Python one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from call_arguments import arguments
from library_build import ARCHITECTURE, HEADERS, INSTALLED, LIBRARY, SINGLE, cmake, needs_nvcc, one_worker
from mamba2_mixer.library import MixerError, MixerLibrary, Shape, read_abi
from mamba2_mixer.testing.runner import PLUGINS
from mixer_model import mixer_request

from attention_model import attention_request
from elastic_export.engine.process import build_engine
from elastic_export.engine.request import EngineRequest
from elastic_runtime.errors import BuildError
from elastic_runtime.format.engine_code import Code, HostCode, host_code
from elastic_runtime.format.plugin_libraries import library_mark, read_libraries

pytestmark = one_worker
needs_headers = pytest.mark.skipif(
    HEADERS is None, reason="neither TENSORRT_RTX_ROOT nor TENSORRT_ROOT is set: the TensorRT glue was not built"
)


@needs_nvcc
def test_without_headers_all_but_the_glue_is_built_and_says_so(tmp_path: Path) -> None:
    bare = {k: v for k, v in os.environ.items() if not k.startswith("TENSORRT")}
    said = cmake("-S", str(PLUGINS), "-B", str(tmp_path), environment=bare)
    assert "TensorRT plugins: NO, only the C interface: NvInferRuntime.h was not found; set TENSORRT_RTX_ROOT" in said
    required = ["cmake", str(tmp_path), "-DELASTIC_REQUIRE_TENSORRT=ON"]
    done = subprocess.run(required, capture_output=True, text=True, check=False, env=bare)
    assert done.returncode != 0
    assert "expected them, found only the C interface" in " ".join(done.stderr.split())


@needs_nvcc
@pytest.mark.timeout(900)
def test_abi_is_read_without_loading(library: Path, tmp_path: Path) -> None:
    abi = read_abi(library)
    assert abi == json.loads(MixerLibrary(library).abi())
    assert abi["ops"] == {"Mamba2Mixer": "1", "CachedAttention": "1"}
    assert abi["architectures"] == f"{ARCHITECTURE}"
    assert (abi["tensorrt"] == "none") == (HEADERS is None)
    other = tmp_path / "other.so"
    other.write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(MixerError, match="expected the mark elastic-plugins-abi/1, found none"):
        read_abi(other)


@needs_nvcc
@pytest.mark.timeout(900)
def test_failures_of_cuda_come_back_as_text(library: Path) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("there is a GPU driver: the device answers")
    with pytest.raises(MixerError, match="Mamba2Mixer: compute capability of the current device: "):
        MixerLibrary(library).enqueue(arguments(Shape(1, 1, 8, 20, 2, 16, 4)))


@pytest.fixture
def probe(built_library: Path) -> Path:
    """plugin_probe, which asks the built plugin what TensorRT would."""
    return built_library / "plugin_probe"


def ask(probe: Path, *words: str) -> list[str]:
    return subprocess.run([str(probe), *words], capture_output=True, text=True, check=True).stdout.splitlines()


@needs_nvcc
@needs_headers
@pytest.mark.timeout(900)
def test_good_mixer_is_accepted(probe: Path) -> None:
    memory = 4 * (2 * 7 * 8 + 2 * 7 * 224)  # workspace_floats of limits.h
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
        (["n_groups=0"], "attribute n_groups: expected 1 to 65535, found 0"),
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
@pytest.mark.parametrize("make", [mixer_request, attention_request])
def test_engine_of_the_library_is_the_engine_of_the_python_declaration(
    make: Callable[[Path], EngineRequest], library: Path, tmp_path: Path
) -> None:
    """The same facts and, the library apart, the same bytes: shown to fit by its own creators, which built it."""
    pytest.importorskip("tensorrt_rtx")
    request, engines, facts = make(tmp_path), dict[str, bytes](), {}
    for name, carried in (("python", None), ("library", library), ("again", library)):
        asked = replace(request, output=tmp_path / f"{name}.engine", plugin_library=carried)
        facts[name] = replace(build_engine(asked), seconds=0, peak_rss=0, size=0)
        engines[name] = asked.output.read_bytes()
    assert facts["python"].plugin_layers == request.plugin_ops
    assert facts["python"] == facts["library"]
    assert engines["library"] == engines["again"]
    code = library.read_bytes()
    assert engines["library"].count(code) == 1
    network = engines["library"].partition(code)[2]
    assert engines["python"].endswith(network.rstrip(b"\0"), 0, len(engines["python"].rstrip(b"\0")))
    known = Code(len(code), hashlib.sha256(code).hexdigest())
    assert host_code(engines["library"], [known]) == HostCode((known,), ())
    assert host_code(engines["python"], [known]) == HostCode((), ())


@needs_nvcc
@needs_headers
@pytest.mark.timeout(900)
def test_a_library_of_another_contract_is_refused(library: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    renamed = tmp_path / "renamed.so"
    renamed.write_bytes(library.read_bytes().replace(b"\0state_size\0", b"\0state_sizf\0"))
    with pytest.raises(
        BuildError, match=r"^plugin Mamba2Mixer of the library: expected version 1, fields .*state_size"
    ):
        build_engine(replace(mixer_request(tmp_path), plugin_library=renamed))
    assert not (tmp_path / "mixer.engine").exists()
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(BuildError, match=r"^the plugin library: expected TensorRT to load it, found "):
        build_engine(replace(mixer_request(tmp_path), plugin_library=broken))


@needs_nvcc
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump was not found")
def test_it_asks_for_nothing_that_an_old_linux_lacks(library: Path) -> None:
    """glibc 2.28 and GCC 8 are those of manylinux_2_28."""
    said = subprocess.run(["objdump", "-T", str(library)], capture_output=True, text=True, check=True).stdout
    for name, newest in (("GLIBC", (2, 28)), ("GLIBCXX", (3, 4, 25)), ("CXXABI", (1, 3, 11))):
        found = {tuple(map(int, text.split("."))) for text in re.findall(rf"\b{name}_([0-9.]+)", said)}
        assert found, said
        assert max(found) <= newest


@needs_nvcc
@pytest.mark.timeout(900)
def test_what_is_installed_is_described(built_library: Path) -> None:
    """`libraries.json`, which the runtime reads, is of the installed files, whose digests stripping changes."""
    found = read_libraries(built_library / INSTALLED)
    names = {library.file: library.architectures for library in found.libraries}
    single = f"libelastic_plugins.sm{SINGLE}.so"
    assert names == {LIBRARY: (f"{ARCHITECTURE}",), single: (f"{SINGLE}-real",)}
    for library in found.libraries:
        path, mark = found.checked(library), library_mark(built_library / INSTALLED / library.file)
        assert path.stat().st_size == library.size
        assert (mark["tensorrt"], mark["cuda"], mark["library"]) == (found.abi, found.cuda, found.version)
        assert tuple(mark["architectures"].split(",")) == library.architectures
    assert (built_library / INSTALLED / LIBRARY).read_bytes() != (built_library / LIBRARY).read_bytes()
    for capability, file in (("12.0", LIBRARY), ("7.5", single)):
        smallest = found.smallest([capability])
        assert smallest is not None
        assert smallest.file == file
