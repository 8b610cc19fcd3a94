"""Errors a person reads: subject, what was expected, what was found, what to do.

Each class owns the exit code of a command that dies of it, so a command line needs no table.
"""

from __future__ import annotations


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
    return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text)


class InputError(ElasticError):
    """The request or an input file is at fault: exit 2, nothing was written."""

    exit_code = 2


class BuildError(ElasticError):
    """A build step, a verification or the machine (a full disk) failed: exit 1."""

    exit_code = 1


class UnavailableError(BuildError):
    """This machine cannot run it (a package, a library, memory, a card): nothing is wrong with what was to be run."""
