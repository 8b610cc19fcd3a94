"""Building the plugin libraries from the sources that came with us: CMake and nvcc, then one exchange of the folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from elastic_export.ops.contract import plugin_folder
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.plugin_libraries import NAME, PluginLibraries, read_libraries

#: Of the cards that engines are built for, in the order of the wheel; code for others is in its large library alone.
ARCHITECTURES = ("75", "80", "86", "89", "120")
_TOOLS = {"cmake": "CMake 3.24 or newer", "nvcc": "the CUDA compiler of CUDA 13"}
_LIBRARY = "libelastic_plugins."  # how the name of each begins
_LEAST_ARCHITECTURE = 75  # CUDA 13 compiles for none before
_HEADER = "NvInferRuntime.h"  # what CMake looks for, here and in include/
_LAST_WORDS = 600


@dataclass(frozen=True)
class Headers:
    """Where TensorRT's headers come from: a folder, or the repository that git fetches NVIDIA's public ones from; CMake
    looks into the environment (TENSORRT_RTX_ROOT, TENSORRT_ROOT) where neither is said.
    """

    folder: Path | None = None
    repository: str | None = None

    def options(self) -> list[str]:
        """For CMake."""
        if self.folder is not None:
            return [f"-DTENSORRT_RTX_ROOT={self.folder.resolve()}"]
        if self.repository is None:
            return []
        address = [f"-DELASTIC_TENSORRT_REPOSITORY={self.repository}"] if self.repository else []
        return ["-DELASTIC_FETCH_TENSORRT_HEADERS=ON", *address]


def build_plugins(
    output: Path, headers: Headers, architectures: Sequence[str] = ARCHITECTURES, say: Callable[[str], None] = print
) -> PluginLibraries:
    """Build a library for each architecture, and one for all, into a folder that replaces `output`.

    Args:
        output: the folder; one that holds other things than libraries of ours is left alone.
        headers: TensorRT's.
        architectures: numbers such as `120`.
        say: hears of what takes long.

    Raises:
        InputError: a tool is missing, an architecture is none, there are no headers, the folder is another's.
        BuildError: CMake or a compiler failed, with its last words.
    """
    _check_architectures(architectures)
    _check_headers(headers)
    _check_tools()
    _check_output(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".plugins-", dir=output.parent) as scratch:
        build, made = Path(scratch) / "build", Path(scratch) / "made"
        say(f"building plugin libraries for {', '.join(f'sm_{name}' for name in architectures)}: minutes")
        configured = "name TensorRT's headers with --headers DIR, or have git fetch NVIDIA's with --fetch-headers"
        compiled = "do what the compiler asks for, such as another CUDA, or leave out what it does not know of --arch"
        _run_tool(
            "cmake", "-S", plugin_folder(), "-B", build, *_options(architectures), *headers.options(), todo=configured
        )
        _run_tool("cmake", "--build", build, "--target", "libraries", "--parallel", os.cpu_count() or 1, todo=compiled)
        _run_tool("cmake", "--install", build, "--component", "libraries", "--strip", "--prefix", made, todo=compiled)
        read_libraries(made / "libraries")
        if output.exists():
            output.rename(Path(scratch) / "before")
        (made / "libraries").rename(output)
    return read_libraries(output)


def _options(architectures: Sequence[str]) -> list[str]:
    """One architecture is one library; of several there is a small one each, and all in one with PTX of the newest."""
    singles = architectures if len(architectures) > 1 else ()
    *older, newest = sorted(architectures, key=int)
    together = [f"{newest}-real"] if not older else [*(f"{name}-real" for name in older), newest]
    return [
        f"-DELASTIC_ARCHITECTURES={';'.join(together)}",
        f"-DELASTIC_SINGLE_ARCHITECTURES={';'.join(singles)}",
        "-DELASTIC_REQUIRE_TENSORRT=ON",
        "-DELASTIC_LIBRARY_FOLDER=libraries",
        "-DCMAKE_BUILD_TYPE=Release",
    ]


def _check_architectures(architectures: Sequence[str]) -> None:
    for name in architectures:
        if not (re.fullmatch("[1-9][0-9]{1,2}", name) and int(name) >= _LEAST_ARCHITECTURE):
            raise InputError(
                "--arch",
                expected=f"numbers of CUDA architectures from {_LEAST_ARCHITECTURE} on, such as 89,120",
                found=repr(name),
                todo="write them so",
            )


def _check_headers(headers: Headers) -> None:
    folder = headers.folder
    if folder is None or (folder / _HEADER).is_file() or (folder / "include" / _HEADER).is_file():
        return
    raise InputError(
        f"--headers {folder}",
        expected="the folder of TensorRT's headers, or of an SDK with them in include/",
        found=f"no {_HEADER} in it" if folder.is_dir() else "a file" if folder.exists() else "no such folder",
        todo=f"name the one that holds {_HEADER}, or have git fetch NVIDIA's with --fetch-headers",
    )


def _check_tools() -> None:
    for tool, what in _TOOLS.items():
        if shutil.which(tool) is None:
            raise InputError(tool, expected=what, found="no such program", todo="install it and have it on the PATH")


def _check_output(output: Path) -> None:
    """Whether all that goes with the old folder is ours."""
    if not output.exists():
        return
    names = sorted(path.name for path in output.iterdir()) if output.is_dir() else [""]
    others = [name for name in names if name != NAME and not name.startswith(_LIBRARY)]
    if others or (names and NAME not in names):
        found = f"{others[0]} besides" if NAME in names else "other things"
        todo = "name another folder with --output"
        raise InputError(str(output), expected="a folder of plugin libraries, or none", found=found, todo=todo)


def _run_tool(*words: object, todo: str) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise BuildError(
            f"{words[0]} {words[1]}",
            expected="the plugin libraries to be built",
            found=f"…{said[-_LAST_WORDS:]}" if len(said) > _LAST_WORDS else said or f"status {done.returncode}",
            todo=todo,
        )
