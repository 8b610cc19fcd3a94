"""Whether an export may write where it was told to, asked before anything is built."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from elastic_export.bundle.beside import check_beside, own_path
from elastic_export.checkpoint.names import check_utf8
from elastic_runtime.errors import NO_ROOM, BuildError, ElasticError, InputError, room_advice
from elastic_runtime.format.manifest import Manifest
from elastic_runtime.format.manifest_reader import NAME, read_manifest

_NO_RIGHT = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENOENT, errno.EINVAL, errno.ELOOP,
)  # fmt: skip

_ELSEWHERE = "name another output with --output"
_ENDLESS = "a symbolic link that leads back to itself"


def check_output(output: Path, *, force: bool = False, protect: Iterable[Path] = ()) -> tuple[Path, Manifest | None]:
    """The folder the bundle will be (`own_path`), and the manifest of the bundle that stands there.

    A folder that is absent, empty or a bundle with nothing else in it may be replaced; any other one only with `force`.

    Args:
        output: as the user named it. Missing parents are made later.
        force: replace whatever folder is there.
        protect: folders that must survive (the checkpoint): never replaced, not even with `force`.

    Raises:
        InputError: its path is not UTF-8, a file is in the way, the folder is not a bundle, no right to write, or a
            protected folder is in it; or beside it is a file of another's where one of ours goes (`check_beside`).
        OSError: what the file system says to looking there (`os_errors_explained`).
    """
    path, real = own_path(output), Path(os.path.realpath(output))
    check_utf8(f"output {output}", str(real), "a path in UTF-8", _ELSEWHERE)  # by which libraries open files in it
    if path.is_symlink():  # every other link has been followed
        raise InputError(f"output {output}", expected="a folder", found=_ENDLESS, todo=_ELSEWHERE)
    if path.exists() and not path.is_dir():
        raise InputError(f"output {output}", expected="a folder", found="a file", todo="name another output")
    for kept in (Path(os.path.expanduser("~")), Path.cwd(), *protect):
        if real in (kept.resolve(), *kept.resolve().parents):
            found = f"one that holds {kept}"
            raise InputError(f"output {output}", expected="a folder of its own", found=found, todo=_ELSEWHERE)
    if os.path.ismount(path):
        todo = "name a folder in it"
        raise InputError(
            f"output {output}", expected="a folder that can be exchanged", found="a mount point", todo=todo
        )
    _check_right(path, output)
    check_beside(path)
    return path, _previous(path, output, force) if path.exists() and any(path.iterdir()) else None


@contextmanager
def os_errors_explained(output: Path) -> Iterator[None]:
    """Around what looks at an output or begins one: an OSError there is the user's error (`explain_os_error`)."""
    try:
        yield
    except OSError as error:
        if shown := explain_os_error(error, output, rights=True):
            raise shown from error
        raise


def explain_os_error(error: OSError, output: Path, *, rights: bool) -> ElasticError | None:
    """The user's error for a machine's: a full disk, and (with `rights`) no right to write; None for any other."""
    reason = error.strerror or str(error)
    if error.errno in NO_ROOM:
        todo = room_advice(error, "free some space, or name an output on another file system")
        return BuildError(f"output {output}", expected="room for the bundle", found=reason, todo=todo)
    if rights and error.errno in _NO_RIGHT:
        return InputError(f"output {output}", expected="a folder that can be written", found=reason, todo=_ELSEWHERE)
    return None


def _check_right(path: Path, output: Path) -> None:
    parent = path.parent
    while not parent.exists() and not parent.is_symlink():
        parent = parent.parent
    if not parent.is_dir():
        found = _ENDLESS if parent.is_symlink() else "a file"
        raise InputError(f"output {output}", expected=f"a folder at {parent}", found=found, todo=_ELSEWHERE)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"output {output}", expected="the right to write", found=f"none in {parent}", todo=_ELSEWHERE)


def _previous(path: Path, output: Path, force: bool) -> Manifest | None:
    try:
        manifest = read_manifest(path)
    except ElasticError as error:
        if force:
            return None
        todo = "name another output, or replace it with --force"
        found = error.found if (path / NAME).exists() else f"a folder with no {NAME} in it"
        raise InputError(f"output {output}", expected="a bundle or an empty folder", found=found, todo=todo) from error
    others = _unlisted(path, manifest)
    if others and not force:
        found = f"{others[0]} as well" + (f" and {len(others) - 1} more" if len(others) > 1 else "")
        todo = "move it away, or replace all with --force"
        raise InputError(f"output {output}", expected="a bundle with only its own files", found=found, todo=todo)
    return manifest


def _unlisted(path: Path, manifest: Manifest) -> list[str]:
    listed = {NAME, *(entry.path for entry in manifest.files)}
    present = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
    return sorted(name for file in present if (name := file.relative_to(path).as_posix()) not in listed)
