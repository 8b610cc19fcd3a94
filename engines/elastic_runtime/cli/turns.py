"""The turns of a conversation: lines of standard input; at a terminal with a sign before them and a history."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from threading import Event

import click

from elastic_runtime.cli.ctrl_c import heard_while_waiting
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
    try:
        yield from _typed() if are_typed() else _piped()
    except UnicodeDecodeError as error:
        raise not_utf8(error) from None


def _piped() -> Iterator[str]:
    while line := standard_input().readline():
        yield line.rstrip("\n")


def _typed() -> Iterator[str]:
    with suppress(ImportError):  # not on Windows, whose terminal has a history of its own
        import readline  # noqa: F401, PLC0415  # `input` asks it from then on
    with heard_while_waiting() as waiting:
        while (line := _typed_line(waiting)) is not None:
            yield line


def _typed_line(waiting: Event) -> str | None:
    """A line with the keys and the history of readline; Ctrl-C drops it, Ctrl-D at its beginning ends all."""
    while True:
        try:
            waiting.set()
            if sys.stdout.isatty():
                return input(_SIGN)
            click.echo(_SIGN, nl=False, err=True)  # a file gets the answers alone
            return input()
        except EOFError:
            click.echo(err=True)
            return None
        except KeyboardInterrupt:
            click.echo(f"\n{_END}", err=True)
        finally:
            waiting.clear()
