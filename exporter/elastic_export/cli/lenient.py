"""The options that let a checkpoint hold more than the model: the same for every command that opens one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

LENIENT = (
    click.option("--ignore-tensors", multiple=True, metavar="GLOB",
                 help="Ignore these tensors: they are no part of the model; repeatable."),
    click.option("--ignore-config", multiple=True, metavar="KEY",
                 help="Ignore this key of config.json: it has no effect on the model; repeatable."),
)  # fmt: skip


def lenient_options(function: F) -> F:
    """Add them to a command."""
    for option in reversed(LENIENT):
        function = option(function)
    return function
