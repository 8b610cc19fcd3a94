"""The turns of a conversation: lines of standard input; at a terminal with a sign before them and a history."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress

import click

from elastic_runtime.cli.prompt import not_utf8, standard_input

_SIGN = "> "
HELP = """\
/budget NAME  go on with another budget
/help         this
Ctrl-C stops an answer, Ctrl-D ends the conversation"""
_END = HELP.splitlines()[-1].split(", ")[-1]


def are_typed() -> bool:
    """Whether somebody sits there. Raises InputError where standard input is closed."""
    return standard_input().isatty()


def turns() -> Iterator[str]:
    """Line by line, until the input ends. Raises InputError where it is closed or no UTF-8."""
    read = _typed if are_typed() else _piped
    try:
        while (line := read()) is not None:
            yield line
    except UnicodeDecodeError as error:
        raise not_utf8(error) from None


def _piped() -> str | None:
    line = standard_input().readline()
    return line.rstrip("\n") if line else None


def _typed() -> str | None:
    """A line with the keys and the history of readline; Ctrl-C drops it, Ctrl-D at its beginning ends all."""
    with suppress(ImportError):  # not on Windows, whose terminal has a history of its own
        import readline  # noqa: F401, PLC0415  # `input` asks it from then on
    while True:
        try:
            if sys.stdout.isatty():
                return input(_SIGN)
            click.echo(_SIGN, nl=False, err=True)  # a file gets the answers alone
            return input()
        except EOFError:
            click.echo(err=True)
            return None
        except KeyboardInterrupt:
            click.echo(f"\n{_END}", err=True)
