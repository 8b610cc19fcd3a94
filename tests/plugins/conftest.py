"""The plugins' sources compiled, for this machine's CPU and by CMake, and kept while sources and compilers stay."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
sys.path[:0] = [str(PLUGINS), str(Path(__file__).parent)]

import library_build  # noqa: E402
from cached_attention.testing import runner as attention  # noqa: E402
from cached_attention.testing.cases import Case, Data, Result  # noqa: E402
from kept_builds import PREFIX, claimed  # noqa: E402
from library_build import HEADERS, LIBRARY, REPORT, build_library  # noqa: E402
from mamba2_mixer.testing.runner import MAIN, QUICK, RACES, HostBuild, sources_digest  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _needs_compiler() -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ was not found: the kernels' host build needs it")


#: `kept(name, fill)`: a folder that `fill` filled.
Kept = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def kept(pytestconfig: pytest.Config) -> Iterator[Kept]:
    """Folders filled now or in an earlier run, by the same compilers from the same sources in the same way."""
    digest = hashlib.sha256((sources_digest() + str(HEADERS)).encode())
    for path in (Path(__file__), Path(library_build.__file__), *library_build.header_versions()):
        digest.update(path.read_bytes())
    for compiler in filter(shutil.which, ("g++", "nvcc")):
        digest.update(subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout)
    name = digest.hexdigest()[:16]
    with claimed(pytestconfig.cache.mkdir(f"{PREFIX}{name}").parent, name) as cache:
        yield _filling(cache)


def _filling(cache: Path) -> Kept:
    def make(name: str, fill: Callable[[Path], object]) -> Path:
        with (cache / f"{name}.lock").open("w") as lock:  # workers of pytest-xdist, and other runs: one of them builds
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (cache / name).exists():
                with tempfile.TemporaryDirectory(dir=cache) as folder:
                    made = Path(folder) / name
                    made.mkdir()
                    fill(made)
                    made.rename(cache / name)
        return cache / name

    return make


def _objects(kept: Kept, name: str, build: HostBuild, main: str = MAIN) -> dict[str, Path]:
    sources = (*build.sources(), main)
    return build.objects(sources, kept(name, lambda folder: build.compile(sources, folder)))


@pytest.fixture(scope="session")
def case_objects(kept: Kept) -> dict[str, Path]:
    """Object files of case_runner by source, under the sanitizers, all activation types."""
    return _objects(kept, "case_objects", HostBuild())


@pytest.fixture(scope="session")
def case_runner(case_objects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """case_runner under the sanitizers, all activation types."""
    return HostBuild().link(case_objects.values(), tmp_path_factory.mktemp("host_build") / "case_runner")


@pytest.fixture(scope="session")
def quick_objects(kept: Kept) -> dict[str, Path]:
    """Object files of case_runner by source, without sanitizers, float32 only."""
    return _objects(kept, "quick_objects", QUICK)


@pytest.fixture(scope="session")
def host_library(quick_objects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C interface as a shared library for ctypes."""
    objects = [path for source, path in quick_objects.items() if source != MAIN]
    return QUICK.link(objects, tmp_path_factory.mktemp("host_library") / "libelastic_host.so", shared=True)


@pytest.fixture(scope="session")
def attention_objects(kept: Kept) -> dict[str, Path]:
    """Object files of attention_cases by source, under the sanitizers, both types."""
    return _objects(kept, "attention_objects", attention.AttentionBuild(), attention.MAIN)


@pytest.fixture(scope="session")
def attention_cases(attention_objects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """attention_cases under the sanitizers, both types."""
    program = tmp_path_factory.mktemp("host_build") / "attention_cases"
    return attention.AttentionBuild().link(attention_objects.values(), program)


#: `attention_run(case)`: its data, and what the kernels made of them.
AttentionRun = Callable[[Case], tuple[Data, Result]]


@pytest.fixture(scope="session")
def attention_run(attention_cases: Path, tmp_path_factory: pytest.TempPathFactory) -> AttentionRun:
    """`run_case` with a memory: sanitized fibers are slow, and the same cases are compared with more than one."""
    folder = tmp_path_factory.mktemp("attention_run")
    return functools.cache(lambda case: attention.run_case([str(attention_cases)], case, folder))


@pytest.fixture(scope="session")
def quick_attention_objects(kept: Kept) -> dict[str, Path]:
    """Object files of attention_cases by source, without sanitizers, float16 only."""
    return _objects(kept, "quick_attention_objects", attention.QUICK, attention.MAIN)


@pytest.fixture(scope="session")
def attention_library(quick_attention_objects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The op's C interface as a shared library for ctypes."""
    objects = [path for source, path in quick_attention_objects.items() if source != attention.MAIN]
    folder = tmp_path_factory.mktemp("host_library")
    return attention.QUICK.link(objects, folder / "libelastic_attention_host.so", shared=True)


@pytest.fixture(scope="session")
def race_objects(kept: Kept) -> dict[str, Path]:
    """Object files of case_runner by source, under the thread sanitizer, all activation types."""
    return _objects(kept, "race_objects", HostBuild(watch=RACES))


@pytest.fixture(scope="session")
def race_attention_objects(kept: Kept) -> dict[str, Path]:
    """Object files of attention_cases by source, under the thread sanitizer, float16 only."""
    return _objects(
        kept, "race_attention_objects", attention.AttentionBuild(float16_only=True, watch=RACES), attention.MAIN
    )


@pytest.fixture(scope="session")
def built_library(kept: Kept) -> Path:
    """The folder that `build_library` filled."""
    return kept("library", build_library)


@pytest.fixture(scope="session")
def library(built_library: Path) -> Path:
    """libelastic_plugins.so for one architecture."""
    return built_library / LIBRARY


@pytest.fixture(scope="session")
def ptxas_report(built_library: Path) -> str:
    """What ptxas said of the libraries' kernels, on both architectures."""
    return (built_library / REPORT).read_text()
