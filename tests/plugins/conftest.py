"""The plugins' sources built for this machine's CPU, once a session and kept while the sources stay the same."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
sys.path[:0] = [str(PLUGINS), str(Path(__file__).parent)]

from library_build import LIBRARY, REPORT, build_library  # noqa: E402
from mamba2_mixer.testing.runner import MAIN, QUICK, HostBuild, sources_digest  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _needs_compiler() -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ was not found: the kernels' host build needs it")


def _kept(config: pytest.Config, name: str, fill: Callable[[Path], object]) -> Path:
    """A folder that `fill` filled, now or in an earlier run with the same sources."""
    cache = config.cache.mkdir(f"elastic_plugins_{sources_digest()}")
    if not (cache / name).exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            made = Path(folder) / name
            made.mkdir()
            fill(made)
            made.rename(cache / name)
    return cache / name


def _objects(config: pytest.Config, name: str, build: HostBuild) -> dict[str, Path]:
    sources = (*build.sources(), MAIN)
    return build.objects(sources, _kept(config, name, lambda folder: build.compile(sources, folder)))


@pytest.fixture(scope="session")
def case_objects(pytestconfig: pytest.Config) -> dict[str, Path]:
    """Object files of case_runner by source, under the sanitizers, all activation types."""
    return _objects(pytestconfig, "case_objects", HostBuild())


@pytest.fixture(scope="session")
def case_runner(case_objects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """case_runner under the sanitizers, all activation types."""
    return HostBuild().link(case_objects.values(), tmp_path_factory.mktemp("host_build") / "case_runner")


@pytest.fixture(scope="session")
def quick_objects(pytestconfig: pytest.Config) -> dict[str, Path]:
    """Object files of case_runner by source, without sanitizers, float32 only."""
    return _objects(pytestconfig, "quick_objects", QUICK)


@pytest.fixture(scope="session")
def host_library(quick_objects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C interface as a shared library for ctypes."""
    objects = [path for source, path in quick_objects.items() if source != MAIN]
    return QUICK.link(objects, tmp_path_factory.mktemp("host_library") / "libelastic_host.so", shared=True)


@pytest.fixture(scope="session")
def library_and_report(pytestconfig: pytest.Config) -> tuple[Path, str]:
    """libelastic_plugins.so for one architecture, and what its compilers said."""
    folder = _kept(pytestconfig, "library", build_library)
    return folder / LIBRARY, (folder / REPORT).read_text()


@pytest.fixture(scope="session")
def library(library_and_report: tuple[Path, str]) -> Path:
    """libelastic_plugins.so for one architecture."""
    return library_and_report[0]


@pytest.fixture(scope="session")
def ptxas_report(library_and_report: tuple[Path, str]) -> str:
    """What ptxas said of the library's kernels."""
    return library_and_report[1]
