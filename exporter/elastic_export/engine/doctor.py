"""What this machine offers to a build: the engine's lines of `elastic-export doctor`."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from elastic_export.engine.build_folder import LIBRARY_FOLDER, last_words, lay_libraries, write_processor
from elastic_export.engine.flavour import flavour
from elastic_export.engine.full import gpu_compute_capabilities
from elastic_export.engine.isolation import claimed_processor, fixed_addresses
from elastic_export.engine.probe import PRODUCT
from elastic_export.engine.process import child_environment
from elastic_export.engine.rtx import ALLOCATOR, allocator_links
from elastic_export.packages import package_version
from elastic_export.plan.ops_modes import find_libraries
from elastic_export.products import TENSORRT, TENSORRT_RTX
from elastic_runtime.errors import InputError

#: `ok` works, `absent` is missing but optional, `warn` works with a loss, `bad` prevents builds.
State = Literal["ok", "absent", "warn", "bad"]

#: Room for the largest native engine and its log, bytes.
WANTED_TEMP_SPACE = 1 << 30
PROBE_TIMEOUT = 60.0
#: Builds the smallest engine there is.
PROBE = "elastic_export.engine.probe"


@dataclass(frozen=True)
class DoctorFact:
    """One line of the report."""

    name: str
    state: State
    detail: str


def engine_facts() -> list[DoctorFact]:
    """Every fact about building engines here; runs one tiny build in a process of its own, a second or two."""
    return [_python(), _rtx(), _full(), _plugins(), _gpu(), *_probe(), _temp_space()]


def _python() -> DoctorFact:
    return DoctorFact("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _rtx() -> DoctorFact:
    name, found = TENSORRT_RTX.name, package_version(TENSORRT_RTX.name)
    return DoctorFact(name, "ok", found) if found else DoctorFact(name, "bad", "not installed")


def _full() -> DoctorFact:
    """The optional product, and what it lacks here."""
    product, what = flavour(TENSORRT.name), f"for --flavour {TENSORRT.name}, experimental"
    try:
        product.check_machine()
    except InputError as error:
        return DoctorFact(product.name, "absent", f"{what}: needs {error.expected}, found {error.found}")
    return DoctorFact(product.name, "ok", f"{package_version(product.name)}, {what}: builds for this GPU only")


def _plugins() -> DoctorFact:
    """The libraries that would go into engines."""
    name = "plugin libraries"
    try:
        found = find_libraries(None)
    except InputError as error:
        return DoctorFact(name, "warn", str(error))
    if found is None:
        return DoctorFact(name, "absent", "engines carry none, and native ones are built beside plugin ones")
    built = f"TensorRT headers {found.abi}, CUDA {found.cuda}"
    return DoctorFact(name, "ok", f"{len(found.libraries)} in {found.path}, {built}")


def _gpu() -> DoctorFact:
    found = gpu_compute_capabilities()
    if not found:
        return DoctorFact("gpu", "absent", "no driver or no GPU: RTX engines build, none can be run here")
    return DoctorFact("gpu", "ok", ", ".join(found))


def _probe() -> list[DoctorFact]:
    command = [sys.executable, "-B", "-m", PROBE]
    with tempfile.TemporaryDirectory(prefix="elastic-doctor-") as folder:
        lay_libraries(Path(folder) / LIBRARY_FOLDER, PRODUCT)
        try:
            with claimed_processor() as processor, fixed_addresses():
                write_processor(Path(folder), processor)
                done = subprocess.run(
                    command,
                    cwd=folder,
                    env=child_environment(os.environ, flavour(PRODUCT).preloads()),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=PROBE_TIMEOUT,
                    check=False,
                )
        except subprocess.TimeoutExpired:
            return [DoctorFact("builder", "bad", f"did not end within {PROBE_TIMEOUT:g} s")]
    if done.returncode != 0:
        return [DoctorFact("builder", "bad", last_words(done.stderr, lines=2))]
    found = json.loads(done.stdout)
    return [
        DoctorFact("builder", "ok", f"built a test engine for SM120 in {found['seconds']:.2f} s"),
        _allocator(found["allocator"]),
        _reproducible(found["chances"]),
    ]


def _allocator(preloaded: bool) -> DoctorFact:
    version = package_version(ALLOCATOR)
    if preloaded:
        return DoctorFact("allocator", "ok", f"oneTBB {version}")
    if version is None:
        why = "pip install tbb"
    elif not allocator_links():
        why = f"tbb {version} is installed without its libraries: pip install --force-reinstall tbb, without --target"
    else:
        why = f"the loader refuses to preload tbb {version}"
    return DoctorFact("allocator", "warn", f"the system's, native engines take half as long again or more; {why}")


def _reproducible(chances: Sequence[str]) -> DoctorFact:
    if chances:
        return DoctorFact("reproducible bytes", "warn", "; ".join(chances))
    return DoctorFact("reproducible bytes", "ok", "no address randomisation and ordered threads while building")


def _temp_space() -> DoctorFact:
    folder = Path(tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    state: State = "ok" if free >= WANTED_TEMP_SPACE else "warn"
    return DoctorFact("temporary space", state, f"{free / 2**30:.1f} GiB free in {folder}")
