"""The built-in demo: a small elastic model that has learned Python's standard library, and travels with the program.

What it is, how it was made and what it cannot says its card (`trained_demo/README.md`); tests/demo makes another one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from elastic_runtime.cache_home import cache_home
from elastic_runtime.errors import BuildError

NAME = "elastic-demo"
SUMS = "demo.sha256"

#: SHA-256 of the file of sums: what travels and what is found in the cache must have it. It names the folder there
#: besides, so that two releases with different models do not take turns in copying one folder anew.
DIGEST = "1b6723874be731a2a10cc3c3f446910643215d19379af754b3746cc021f7bf20"

_SHIPPED = Path(__file__).parent / "trained_demo"


def demo_checkpoint(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the demo checkpoint, in the cache; copied there on first use and again when a file is damaged.

    Not the installed files themselves: a bundle's weights are hard links to its checkpoint's, and nobody who writes to
    a bundle may change what is installed.

    Several processes may call this at once: each makes its own copy, the first to finish wins.

    Args:
        environ: ELASTIC_CACHE says where the cache is, else XDG_CACHE_HOME, else `~/.cache`.

    Raises:
        BuildError: the cache cannot be written, or what is installed is damaged.
    """
    folder = cache_folder(environ) / f"demo-{DIGEST[:16]}" / NAME
    if _is_whole(folder):
        return folder
    if not _is_whole(_SHIPPED):
        found = "others, or not all of them"
        todo = "install elastic-export again"
        raise BuildError(str(_SHIPPED), expected=f"the demo model's files, {DIGEST}", found=found, todo=todo)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
            _install(_copied(Path(scratch) / NAME), folder, Path(scratch) / "damaged")
    except OSError as error:
        todo = "name a folder you can write with ELASTIC_CACHE"
        found = error.strerror or str(error)
        raise BuildError(str(folder), expected="to write the demo model", found=found, todo=todo) from None
    return folder


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where we keep what can be made again."""
    return cache_home(environ, "elastic-export")


def sums(folder: Path) -> bytes:
    """One line a file but that of the sums, as `sha256sum` writes and checks them."""
    files = sorted(path for path in folder.iterdir() if path.name != SUMS)
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files).encode()


def _copied(folder: Path) -> Path:
    folder.mkdir()
    for path in _SHIPPED.iterdir():
        shutil.copyfile(path, folder / path.name)  # without its mode: an installed file may be read-only
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether the files are those of the demo, all of them and no others."""
    try:
        found = sums(folder)
        return hashlib.sha256(found).hexdigest() == DIGEST and (folder / SUMS).read_bytes() == found
    except OSError:
        return False


def _install(made: Path, folder: Path, aside: Path) -> None:
    """Move `made` to `folder` in one step; a whole one that somebody else put there meanwhile stays."""
    for _ in range(10):
        if _is_whole(folder):
            return
        try:
            if folder.exists():
                folder.rename(aside)
            made.rename(folder)
        except FileNotFoundError:
            continue  # somebody else moved the damaged one away first
        except OSError:
            if not folder.exists():
                raise
        shutil.rmtree(aside, ignore_errors=True)
    raise OSError(errno.EBUSY, "it is changed by somebody else over and over")
