"""A file of the checkpoint into the bundle: hard link, else clone, else copy; its digest beside it or on the way."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from elastic_export.bundle.digests import Digests, entry_at_hand
from elastic_runtime.errors import NO_ROOM, BuildError
from elastic_runtime.format.digest import file_digest
from elastic_runtime.format.manifest import FileEntry

_FICLONE = 0x40049409  # linux/fs.h: share the blocks of another file (btrfs, xfs)
_PIECE = 8 << 20


def place(
    source: Path,
    folder: Path,
    relative: str,
    *,
    digests: Digests,
    trust: bool,
    say: Callable[[str], None],
    old: FileEntry | None,
    old_folder: Path,
) -> Future[FileEntry]:
    """Make `source` the file `folder/relative` and begin its entry, whose digest is of `source`: a link to it is the
    same file, and what changes it later is found by `Digests.check_unchanged`.

    Symbolic links are resolved first: a bundle points nowhere outside itself. Before bytes are copied, `old` (the same
    path in the bundle that stands at `old_folder`) is linked if it holds the same bytes.

    Args:
        source: a file of the checkpoint.
        folder: the staged bundle.
        relative: `/` between the parts.
        digests: computes the digest.
        trust: whether a remembered digest of `source` will do.
        say: hears of a copy and its size.
        old: entry of that path in the older bundle, if any.
        old_folder: the older bundle.

    Raises:
        BuildError: the stage has a file of that name: writing it again could write through a link into the checkpoint.
    """
    source, target = source.resolve(strict=True), folder / relative
    if os.path.lexists(target):
        raise BuildError(
            f"bundle file {relative}",
            expected="one file of that name",
            found=f"a second one, {source}",
            todo="rename one of the two, or use a file system that tells capitals from small letters",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    size = digests.watch(source).size  # before its bytes are
    if _link(source, target) or _clone(source, target):
        return digests.of_source(source, relative, trust=trust)
    if old is not None and old.size == size:
        entry = digests.of_source(source, relative, trust=trust)
        if link_same(old_folder / relative, target, entry.result(), old):
            return entry
    say(f"{relative}: copying {size / 2**30:.2f} GiB; the checkpoint is on another file system")
    return entry_at_hand(FileEntry(relative, *_copy(source, target)))


def duplicate(source: Path, target: Path) -> None:
    """Make `target` the same bytes as `source`, both in the stage: linked, else cloned, else copied.

    Raises:
        FileExistsError: there is a `target`.
    """
    if not (_link(source, target) or _clone(source, target)):
        _copy(source, target)


def link_same(old_path: Path, target: Path, new: FileEntry, old: FileEntry) -> bool:
    """Make `target` a hard link to the older bundle's file if that really holds the bytes of `new`; say whether."""
    same = (old.size, old.sha256) == (new.size, new.sha256) and old_path.is_file() and not old_path.is_symlink()
    if not same or file_digest(old_path) != (new.size, new.sha256):  # a damaged file must not spread
        return False
    beside = target.with_name(f"{target.name}.link")
    if not _link(old_path, beside):
        return False
    beside.replace(target)
    return True


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        raise  # it may be a link to the source itself, which the next ways would then open
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        return False  # another file system, no such right, too many links: the next way may do
    return True


def _clone(source: Path, target: Path) -> bool:
    with source.open("rb") as reader, target.open("xb") as writer:  # "wb" would follow a link and empty its file
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
        else:
            return True
    target.unlink()
    return False


def _copy(source: Path, target: Path) -> tuple[int, str]:
    state, size = hashlib.sha256(), 0
    with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        while piece := reader.read(_PIECE):
            state.update(piece)
            size += len(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[writer.write(rest) :]
    return size, state.hexdigest()
