"""The files beside the weights that a program needs to talk to the model, or to be allowed to."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from elastic_export.checkpoint.names import check_carried
from elastic_runtime.errors import InputError
from elastic_runtime.text.files import GENERATION, TEMPLATES

COMPANIONS = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.jinja",
    "chat_template*",
    GENERATION,
    "LICEN[CS]E*",
    "NOTICE*",
)

#: The first bytes of what Git LFS, by its present or its first name, leaves in place of a file.
_POINTERS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")


def is_companion(name: str) -> bool:
    """Whether a file of this name travels with the model."""
    return any(fnmatchcase(name, pattern) for pattern in COMPANIONS)


def find_companions(directory: Path) -> tuple[Path, ...]:
    """Tokenizer, chat templates, generation config and licence files, by name: what a bundle carries along.

    Raises:
        InputError: one that cannot be copied whole: unreadable, a broken link, a Git LFS pointer, a name that no
            manifest holds.
    """
    named = [path for path in directory.iterdir() if is_companion(path.name)]
    folder = directory / TEMPLATES
    named += [path for path in folder.iterdir() if path.suffix == ".jinja"] if folder.is_dir() else []
    found = sorted(path for path in named if path.is_file() or _is_broken(path) or _is_folder(path))
    for path in found:
        check_carried(str(path), path.name, "rename or remove the file: a bundle carries it along")
        check_file(path)
    return tuple(found)


def check_file(path: Path) -> None:
    """Look into a file of a checkpoint before anything is made of it; whether there must be one, its reader says.

    Raises:
        InputError: a link to nothing, a folder, a file that may not be read here, or a Git LFS pointer.
    """
    subject = str(path)
    if _is_broken(path):
        todo = "download the checkpoint again: it is not complete"
        raise InputError(subject, expected="a file", found="a link to one that is not there", todo=todo)
    if _is_folder(path):
        todo = "download the file; a container makes such a folder where it is to mount a file that is not there"
        raise InputError(subject, expected="a file", found="a folder in its place", todo=todo)
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            beginning = file.read(max(map(len, _POINTERS)))
    except OSError as error:
        found, todo = error.strerror or str(error), "change who may read it"
        raise InputError(subject, expected="a file that can be read", found=found, todo=todo) from None
    if beginning.startswith(_POINTERS):
        todo = f"fetch it: git lfs pull in {path.parent}, or hf download"
        raise InputError(subject, expected="the file itself", found="a Git LFS pointer in its place", todo=todo)


def _is_folder(path: Path) -> bool:
    """A folder that is called as a file is; LICENSES, say, may be one."""
    return path.suffix in (".json", ".jinja") and path.is_dir()


def _is_broken(path: Path) -> bool:
    return path.is_symlink() and not path.exists()
