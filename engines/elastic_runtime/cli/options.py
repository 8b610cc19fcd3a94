"""Options that do not go together."""

from __future__ import annotations

import click

from elastic_runtime.errors import InputError

_BRING_UP = {"--bring-up", "--report", "--minutes", "--plugins", "--plugin-sources", "--trust-engine", "--debug"}
_BRING_UP |= {"--weights-folder"}
_NOT_WITH_VERIFY = {"--json", "--chat", "--explain"}


def check_beside(context: click.Context, *, bring_up: bool, verify: bool) -> None:
    """Whether what was given beside --bring-up or --verify means something there. Raises InputError."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if isinstance(parameter, click.Option)
        and parameter.name is not None
        and context.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE
    ]
    for name in given:
        if (bring_up and name not in _BRING_UP) or (verify and not bring_up and name in _NOT_WITH_VERIFY):
            what = "--bring-up" if bring_up else "--verify"
            raise InputError(what, expected=f"no {name} beside it", found="it", todo="leave one of them out")
