"""Errors a person reads: subject, what was expected, what was found, what to do.

Each class owns the exit code of a command that dies of it, so a command line needs no table.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


def _numbers(*names: str) -> frozenset[int]:
    """Those of the names that this system has."""
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


#: Exit code of a fault of ours, neither the request's nor the machine's: EX_SOFTWARE of sysexits.h.
FAULT = 70
INTERRUPTED = 130  # as a shell reports SIGINT
_MAX_FAULT = 500  # characters of the one line that it prints
#: A full disk, a full quota, a file above the largest size that is allowed.
NO_ROOM = _numbers("ENOSPC", "EDQUOT", "EFBIG")
_ADVICE = {
    "change who may use it, or name another place": ("EACCES", "EPERM"),
    "name a place that can be written": ("EROFS",),
    "see that its disk is sound and still mounted": ("EIO", "EREMOTEIO", "ESTALE", "ENXIO", "ENODEV"),
    "name a shorter path": ("ENAMETOOLONG",),
    "name a path of folders, without links in a circle": ("ELOOP", "ENOTDIR", "EISDIR"),
    "end the program that uses it": ("ETXTBSY", "EBUSY"),
    "name another file system": ("EMLINK",),
    "raise the limit of open files (ulimit -n)": ("EMFILE", "ENFILE"),
    "close other programs": ("ENOMEM",),
}
#: What else a machine answers that no request and no code of ours can help, and what a person can do. A missing file is
#: none of these: what a user named is looked for and refused by name, and of our own files none may be missing.
REFUSED = {number: todo for todo, names in _ADVICE.items() for number in _numbers(*names)}


class ElasticError(Exception):
    """Base of every error meant for the user.

    Args:
        subject: the thing that is wrong (a file, a tensor, an option), named as the user knows it.
        expected: what would have been right.
        found: what was there instead.
        todo: the next step of the reader, in the imperative; empty where nothing can be said.
    """

    exit_code = 1

    def __init__(self, subject: str, *, expected: str, found: str, todo: str = "") -> None:
        self.subject, self.expected, self.found, self.todo = subject, expected, found, todo
        super().__init__(self._text())

    def _text(self) -> str:
        text = f"{self.subject}: expected {self.expected}, found {self.found}"
        return _printable(f"{text}. {self.todo[0].upper()}{self.todo[1:]}." if self.todo else f"{text}.")


def _printable(text: str) -> str:
    """Names out of a hostile file must not steer a terminal: control characters but the line break are escaped."""
    if text.replace("\n", "").isprintable():  # as nearly every text is
        return text
    return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text)


class InputError(ElasticError):
    """The request or an input file is at fault: exit 2, the output is as it was."""

    exit_code = 2


class BuildError(ElasticError):
    """A build step, a verification or the machine (a full disk) failed: exit 1."""

    exit_code = 1


class UnavailableError(BuildError):
    """This machine cannot run it (a package, a library, memory, a card): nothing is wrong with what was to be run."""


class NoCudaError(UnavailableError):
    """onnxruntime does not compute on a card here.

    It stands here, where nothing is imported, since who opens a session tells it from other refusals without loading
    onnxruntime: the CPU may take its place.
    """

    def __init__(self, found: str) -> None:
        todo = "pip install 'onnxruntime-gpu[cuda,cudnn]' in place of onnxruntime, or run on the CPU (--device cpu)"
        super().__init__(
            "onnxruntime on a card", expected="a CUDA execution provider that works", found=found, todo=todo
        )


class InternalError(ElasticError):
    """A check of our own work failed: nothing that was asked for or given can be the reason, so exit 70 and no advice.

    Whether an error is one is asked of its cause, not of its place: what any input, option or machine can bring about
    is an `InputError` or a `BuildError`, however deep it is found.
    """

    exit_code = FAULT

    def __init__(self, subject: str, *, expected: str, found: str) -> None:
        todo = "this is a fault of elastic-export or of its runtime; run again with --debug and report what that prints"
        super().__init__(subject, expected=expected, found=found, todo=todo)

    @property
    def what(self) -> str:
        """What is wrong, without what to do."""
        return f"{self.subject}: expected {self.expected}, found {self.found}"


@contextmanager
def advised(todo: str) -> Iterator[None]:
    """Give an InputError raised in the block this advice, unless it has its own.

    For the readers of a format, who cannot know what their file is for and where another one comes from.
    """
    try:
        yield
    except InputError as error:
        if error.todo:
            raise
        raise InputError(error.subject, expected=error.expected, found=error.found, todo=todo) from error


def internal_error(error: BaseException, again: str) -> str:
    """The one line that a fault of ours prints, checked for or not; `again`: how to run it for the traceback."""
    what = error.what if isinstance(error, InternalError) else f"{type(error).__name__}: {error}"
    what = _printable(" ".join(what.split())[:_MAX_FAULT])
    return f"internal error: {what}. Run {again} and report what that prints."


def is_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is the cause of an error: of a module that is being imported meanwhile pybind11 says that it
    cannot be, and who imported it that it is not installed.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def room_advice(error: OSError, full: str = "free some space there") -> str:
    """What to do about an error of `NO_ROOM`: `full`, unless it is the file that is too large and not the disk."""
    if error.errno == errno.EFBIG:
        return "raise the limit of a file's size (ulimit -f), or name a file system that takes files of this size"
    return full


def machine_error(error: BaseException) -> BuildError | None:
    """The user's error for an OSError that is the machine's answer; None for any other, which is a fault of ours."""
    if not isinstance(error, OSError):
        return None
    file, found = str(error.filename or ""), error.strerror or str(error)
    if error.errno in NO_ROOM:
        return BuildError(file or "the disk", expected="room to write", found=found, todo=room_advice(error))
    if error.errno in REFUSED:
        expected = "a usable file" if file else "no refusal"
        return BuildError(file or "this machine", expected=expected, found=found, todo=REFUSED[error.errno])
    return None
