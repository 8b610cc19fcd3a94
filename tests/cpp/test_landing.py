"""A default bundle on the stand-in card: what runs, what is said, how it ends; the C++ program and Python.

The program is elastic_generate, linked with stand-ins for CUDA, TensorRT and the driver (fake_sdk/), the card being
what ELASTIC_STAND_IN says. Python's card, TensorRT and driver are replaced to say the same. Both open the same bundle,
whose engine and model compute the same, so that the ids show that it ran.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_runtime.backend import Floats
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import ElasticError, InputError, UnavailableError
from elastic_runtime.opening import Opener, places
from elastic_runtime.session_request import Request
from elastic_runtime.tensorrt import open_tensorrt as engine_opening
from elastic_runtime.tensorrt import plugin_library
from plugin_libraries_folder import library_bytes, write_libraries

pytest.importorskip("onnx")
import onnxruntime

from card_memory import apart
from elastic_runtime.ort import onnx_memory
from elastic_runtime.ort.onnx_memory import check_cuda
from landing_bundle import expected_ids, write_bundle
from landing_cases import CASES, CPU, NO_ENGINE, ON_CPU, Case

GIB = 1 << 30
LIBRARY = library_bytes("one")
PROMPT, COUNT = [1, 2, 3], 4


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("landing")
    return {
        "beside": write_bundle(folder / "beside"),
        "carried": write_bundle(folder / "carried", carried=LIBRARY),
        "swapped": write_bundle(folder / "swapped", carried=LIBRARY, inside=library_bytes("two")),
    }


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("plugins")
    found = {
        "fits": write_libraries(folder / "fits", LIBRARY),
        "other": write_libraries(folder / "other", LIBRARY, abi="rtx-1.6"),
        "sm90": write_libraries(folder / "sm90", LIBRARY, architectures=["90-real"]),
        "swapped": write_libraries(folder / "swapped", LIBRARY),
        "empty": folder / "empty",
    }
    found["empty"].mkdir()
    (found["swapped"] / "libelastic_plugins.0.so").write_bytes(library_bytes("two"))
    return found


@pytest.fixture(scope="module")
def stand_in(host_program: Path) -> Path:
    return host_program.parent / "tests" / "elastic_generate_stand_in"


Ended = tuple[str, int, str, str]  # what ran, exit, subject of the error, what was said
Land = Callable[[Case], Ended]


@pytest.fixture
def cpp(stand_in: Path, bundles: dict[str, Path], plugins: dict[str, Path], tmp_path: Path) -> Land:
    def land(case: Case) -> Ended:
        command: list[Any] = [stand_in, bundles[case.bundle], "--device", case.device, "--no-eos", "--print-ids"]
        command += ["--ids", ",".join(map(str, PROMPT)), "--max-new", COUNT]
        command += ["--plugins", plugins[case.plugins]] if case.plugins else []
        command += ["--trust-engine"] if case.trust else []
        environ = {"ELASTIC_STAND_IN": case.stand_in, "ELASTIC_CACHE": str(tmp_path)}
        done = _run(*command, **environ)
        if done.returncode:
            assert done.stdout == ""
            (subject,) = re.findall(r"elastic_generate: (.*?): expected ", done.stderr.splitlines()[-1])
            return "", done.returncode, subject, done.stderr
        assert [int(word) for word in done.stdout.split()] == expected_ids(PROMPT, COUNT), done.stderr
        *_, ran = re.findall(r"compiling the kernels of (\S+) |(?<=running on the )CPU", done.stderr) or [""]
        return ran or CPU, 0, "", done.stderr

    return land


def _run(*command: object, **environ: str) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | environ, timeout=60)


class Engine:
    """In place of a `Backend` of an engine; nothing is computed."""

    name, device = "tensorrt-rtx", "gpu"
    max_tokens, max_context, max_batch, vocab_size = 4, 20, 3, 16

    def __init__(self, file: str) -> None:
        self.file = file

    def start(self, batch: int) -> None:
        pass

    def call(self, *arguments: Any) -> Floats:
        return np.zeros((1, 16), np.float32)

    def memory(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


@pytest.fixture
def full_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Makes onnxruntime's CUDA provider be there, on a card with room for so many bytes at a time."""
    with ExitStack() as stack:

        def there(room: int) -> None:
            stack.enter_context(apart())
            make = onnxruntime.OrtValue.ortvalue_from_shape_and_type

            def within(shape: Any, dtype: Any, *place: Any) -> Any:
                if int(np.prod(shape)) * np.dtype(dtype).itemsize > room:
                    raise RuntimeError("out of memory")
                return make(shape, dtype, *place)

            monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [onnx_memory.CUDA])
            monkeypatch.setattr(onnx_memory, "check_cuda", check_cuda)
            monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", within)

        yield there
        monkeypatch.undo()  # what a test put over the stand-in goes first, or the stand-in would come back after it


@pytest.fixture
def python(
    bundles: dict[str, Path],
    plugins: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    full_card: Callable[[int], None],
    tmp_path: Path,
) -> Land:
    def land(case: Case) -> Ended:
        facts = dict(word.split("=") for word in case.stand_in.split())
        free = int(facts.get("free_bytes", 8 * GIB))
        card = Card("Fake RTX", f"12.{facts.get('minor', 0)}", free + GIB, free)
        reason = InputError(
            "GPU memory",
            expected="the NVIDIA driver to start",
            found="a driver and a library of different versions (NVML error 18)",
        )
        there = "has_driver" not in facts and "nvml_error" not in facts
        driver = int(facts.get("driver", 13000))

        def load(bundle: Bundle, budget: Any, engine: Any, *rest: Any) -> Any:
            data = engine_opening.read_checked(bundle, engine)
            if int(facts.get("room", GIB)) < 512:  # which the engine takes beside its weights and states
                raise UnavailableError("card 0", expected="cuMemAlloc_v2 to succeed", found="out of memory")
            if facts.get("refused") == data.decode("latin-1"):
                raise UnavailableError(engine.file, expected="an engine that TensorRT-RTX can run here", found="no")
            return Engine(engine.file)

        if "has_provider" in facts:
            full_card(int(facts["room"]))
        monkeypatch.setattr(places, "find_card", lambda: card if there else None)
        monkeypatch.setattr(places, "why_no_card", lambda: reason if "nvml_error" in facts else None)
        monkeypatch.setattr(plugin_library, "installed_libraries", lambda: None)
        monkeypatch.setattr(engine_opening, "installed_version", lambda: f"1.{facts.get('version', 7)}.1.116")
        monkeypatch.setattr(engine_opening, "driver_version", lambda: (driver // 1000, driver % 1000 // 10))
        monkeypatch.setattr(engine_opening, "package_cuda", lambda: 13)
        monkeypatch.setattr(engine_opening, "_load", load)
        monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path))
        folder = plugins[case.plugins] if case.plugins else None
        request = Request(device=case.device, plugin_folder=folder, trust_engine=case.trust)
        said = list[str]()
        try:
            with Opener(Bundle.open(bundles[case.bundle]), request, say=said.append).open() as session:
                backend: Any = session.backend
                return (CPU if backend.device == "cpu" else backend.file), 0, "", "\n".join(said)
        except ElasticError as error:
            return "", error.exit_code, error.subject, "\n".join([*said, str(error)])

    return land


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CASES)
def test_both_languages_run_the_same_and_say_why(cpp: Land, python: Land, name: str) -> None:
    case = CASES[name]
    for land in (cpp, python):
        ran, code, found, said = land(case)
        assert (ran, code) == (case.runs, case.exit), said
        assert found.replace("libelastic_plugins.", "").endswith(case.subject)
        for words in case.says:
            assert words.lower() in said.lower()
        assert said.count("warning: ") + said.count("running on ") == (
            case.sentences if case.says and not case.exit else 0
        ), said


@pytest.mark.timeout(900)
def test_a_card_that_is_gone_ends_it_with_advice(
    stand_in: Path, bundles: dict[str, Path], plugins: dict[str, Path], tmp_path: Path
) -> None:
    common = (stand_in, bundles["beside"], "--ids", "1", "--plugins", plugins["fits"])
    done = _run(*common, ELASTIC_STAND_IN="fails_at=3", ELASTIC_CACHE=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.endswith(
        ": expected the GPU to do it, found the device is gone. See whether nvidia-smi shows the card as sound, or run "
        "on the CPU.\n"
    )


@pytest.mark.timeout(900)
def test_kernels_are_kept_for_the_next_start_where_a_disk_takes_them(
    stand_in: Path, bundles: dict[str, Path], plugins: dict[str, Path], tmp_path: Path
) -> None:
    common = (stand_in, bundles["beside"], "--ids", "1", "--max-new", 1, "--plugins", plugins["fits"])
    for cache, compiles in ((tmp_path / "new", (True, False)), (Path(os.devnull) / "full", (True, True))):
        for wanted in compiles:
            done = _run(*common, ELASTIC_CACHE=str(cache))
            assert (done.returncode, "compiling the kernels" in done.stderr) == (0, wanted), done.stderr


@pytest.mark.timeout(900)
def test_a_16_bit_bundle_says_why_no_engine_runs_and_what_the_cpu_needs(
    stand_in: Path, demo_bundle: Path, twins: Path, tmp_path: Path
) -> None:
    environ = {"ELASTIC_STAND_IN": "driver=12080", "ELASTIC_CACHE": str(tmp_path)}
    options = ("--ids", "1", "--max-new", 1, "--budget", "small")
    done = _run(stand_in, demo_bundle, *options, **environ)
    going, error = done.stderr.splitlines()
    assert "Fake RTX: going on to the CPU with onnxruntime, in float32 arithmetic; on the card it expected " in going
    assert "; no engine runs here: small/rtx5080.engine: expected a driver that runs CUDA 13" in going
    assert "expected a float32 model for onnxruntime's CPU, found bf16. Name its float32 twin" in error
    assert done.returncode == 2
    done = _run(stand_in, demo_bundle, *options, "--model", twins / "small.onnx", **environ)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert "running on the CPU with onnxruntime" in done.stderr


@pytest.mark.timeout(900)
def test_onnxruntime_has_the_card_where_its_provider_is_there(
    stand_in: Path, bundles: dict[str, Path], demo_bundle: Path, tmp_path: Path
) -> None:
    """In front of the CPU, with one warning that says why no engine runs; Python's own: tests/runtime/opening."""

    def land(bundle: Path, device: str, facts: str, *more: object) -> subprocess.CompletedProcess[str]:
        common = (stand_in, bundle, "--device", device, "--no-eos", "--print-ids", "--max-new", COUNT, *more)
        return _run(*common, ELASTIC_STAND_IN=facts, ELASTIC_CACHE=str(tmp_path))

    ids = ("--ids", ",".join(map(str, PROMPT)))
    there = "has_provider=1"
    on_card = "elastic_generate: running on Fake RTX with onnxruntime, in float32 arithmetic"
    for device in ("auto", "gpu"):
        done = land(bundles["beside"], device, f"{there} driver=12080", *ids)
        assert [int(word) for word in done.stdout.split()] == expected_ids(PROMPT, COUNT), done.stderr
        assert done.stderr.startswith(on_card + "; no engine runs here: ")
        assert done.stderr.count("\n") == 1
    done = land(bundles["beside"], "auto", f"{there} minor=1", *ids)
    assert (done.returncode, done.stderr) == (0, on_card + "\n")
    for facts, why in (
        ("provider_fails=libcudnn", "found a refusal: libcudnn" + NO_ENGINE),
        ("free_bytes=1073741824", "expected 1.5 GiB of free memory for its float32 twin, found 1.0 GiB" + NO_ENGINE),
    ):
        done = land(bundles["beside"], "auto", f"{there} driver=12080 {facts}", *ids)
        assert [int(word) for word in done.stdout.split()] == expected_ids(PROMPT, COUNT), done.stderr
        assert why in done.stderr.replace("libelastic_plugins.so", "b/p.engine")
        assert done.stderr.count("running on ") == 1
        assert ON_CPU in done.stderr
        done = land(bundles["beside"], "gpu", f"{there} driver=12080 {facts}", *ids)
        assert (done.returncode, done.stdout) == (1, "")
    done = land(demo_bundle, "gpu", f"{there} driver=12080", "--ids", "1", "--budget", "small")
    assert done.returncode == 1
    assert "onnxruntime on a card: expected a float32 model, found bf16; no engine runs here: " in done.stderr
