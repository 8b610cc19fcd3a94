"""The plugins' sources built for this machine's CPU, once a session and kept while the sources stay the same."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
sys.path[:0] = [str(PLUGINS), str(Path(__file__).parent)]

from mamba2_mixer.testing.runner import HostBuild, sources_digest  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _needs_compiler() -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ was not found: the kernels' host build needs it")


def _kept(config: pytest.Config, name: str, tmp: Path) -> tuple[Path, Path]:
    """Where a product of the build is kept, and a folder to make it in."""
    folder = config.cache.mkdir(f"elastic_plugins_{sources_digest()}")
    tmp.mkdir(exist_ok=True)
    return folder / name, tmp


@pytest.fixture(scope="session")
def case_runner(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """case_runner under the sanitizers, all activation types."""
    kept, folder = _kept(pytestconfig, "case_runner", tmp_path_factory.mktemp("host_build"))
    if not kept.exists():
        HostBuild().case_runner(folder).replace(kept)
    return kept


@pytest.fixture(scope="session")
def host_library(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C interface as a shared library for ctypes, without sanitizers."""
    kept, folder = _kept(pytestconfig, "libelastic_host.so", tmp_path_factory.mktemp("host_library"))
    if not kept.exists():
        build = HostBuild(float32_only=True, sanitize=False)
        build.link(build.compile(build.sources(), folder).values(), folder / "lib.so", shared=True).replace(kept)
    return kept
