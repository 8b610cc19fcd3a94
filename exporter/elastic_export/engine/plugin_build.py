"""Building the plugin libraries from the sources that came with us: CMake and nvcc, then one exchange of the folder."""

from __future__ import annotations

import os
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
        InputError: a tool is missing, an architecture is none, the folder is another's.
        BuildError: CMake or a compiler failed, with its last words.
    """
    _check(output, architectures)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".plugins-", dir=output.parent) as scratch:
        build, made = Path(scratch) / "build", Path(scratch) / "made"
        say(f"building plugin libraries for {', '.join(f'sm_{name}' for name in architectures)}: minutes")
        _run("cmake", "-S", plugin_folder(), "-B", build, *_options(architectures), *headers.options())
        _run("cmake", "--build", build, "--target", "libraries", "--parallel", os.cpu_count() or 1)
        _run("cmake", "--install", build, "--component", "libraries", "--strip", "--prefix", made)
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


def _check(output: Path, architectures: Sequence[str]) -> None:
    for name in architectures:
        if not (name.isdigit() and len(name) in (2, 3)):
            raise InputError(
                "--arch",
                expected="numbers of CUDA architectures, such as 89,120",
                found=repr(name),
                todo="write them so",
            )
    for tool, what in _TOOLS.items():
        if shutil.which(tool) is None:
            raise InputError(tool, expected=what, found="no such program", todo="install it and have it on the PATH")
    if output.exists() and not (output / NAME).is_file() and (not output.is_dir() or any(output.iterdir())):
        todo = "name another folder with --output"
        raise InputError(str(output), expected="a folder of plugin libraries, or none", found="other things", todo=todo)


def _run(*words: object) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())
        raise BuildError(
            f"{words[0]} {words[1]}",
            expected="the plugin libraries to be built",
            found=f"…{said[-_LAST_WORDS:]}" if len(said) > _LAST_WORDS else said or f"status {done.returncode}",
            todo="name TensorRT's headers with --headers DIR, or have git fetch NVIDIA's with --fetch-headers",
        )
