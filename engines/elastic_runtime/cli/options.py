"""Options that do not go together, and what the others ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from elastic_runtime.errors import InputError, advised
from elastic_runtime.fit.sizes import parse_size
from elastic_runtime.format.jsonfile import parse_json
from elastic_runtime.session_request import Request

#: What means something beside each mode; another option beside it would say nothing.
_BESIDE = {
    "--bring-up": {"--report", "--minutes", "--plugins", "--plugin-sources", "--trust-engine", "--weights-folder"},
    "--verify": {"--budget", "--require-engine", "--plugins", "--trust-engine", "--weights-folder"},
}
#: What means something beside one mode alone.
_ONLY_BESIDE = {
    "--report": "--bring-up",
    "--minutes": "--bring-up",
    "--plugin-sources": "--bring-up",
    "--require-engine": "--verify",
}


def check_beside(context: click.Context) -> None:
    """Whether every option that was given means something beside the others. Raises InputError."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if isinstance(parameter, click.Option)
        and parameter.name is not None
        and context.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE
        and parameter.name != "debug"
    ]
    mode = next((mode for mode in _BESIDE if mode in given), None)
    for name in given:
        if mode is not None and name != mode and name not in _BESIDE[mode]:
            raise InputError(mode, expected=f"no {name} beside it", found="it", todo="leave one of them out")
        if (only := _ONLY_BESIDE.get(name)) not in (None, mode):
            raise InputError(name, expected=f"{only} beside it", found="none", todo=f"add {only}, or leave it out")


def check_generation(options: dict[str, Any]) -> None:
    """Whether there is one thing to generate from, and beside it what goes with it. Raises InputError."""
    given = [name for name in ("prompt", "ids", "chat") if options[name] not in (None, False)]
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name in given) or "none"
        raise InputError(
            "request", expected="one of --prompt, --ids and --chat", found=found, todo="give one, as in --prompt Hello"
        )
    for name, option in (("as_json", "--json"), ("print_ids", "--print-ids")):
        if options[name] and options["chat"]:
            raise InputError(option, expected="one answer", found="--chat", todo="leave one of them out")
    for name, option in (("system", "--system"), ("template_args", "--template-arg")):
        if options[name] and not options["chat"]:
            raise InputError(option, expected="--chat beside it", found="none", todo="add --chat, or leave it out")


def request_of(options: dict[str, Any]) -> Request:
    """What to open. Raises InputError about an option."""
    with advised("leave --vram out to reckon with what is free"):
        vram = parse_size(options["vram"], "--vram") if options["vram"] is not None else None
    return Request(
        budget=options["budget"],
        backend=options["backend"],
        device=options["device"],
        vram=vram,
        context=options["context"],
        weights=options["weights"],
        threads=options["threads"],
        plugin_folder=options["plugin_folder"],
        trust_engine=options["trust_engine"],
    )


def template_arguments(given: Sequence[str]) -> dict[str, Any]:
    """`NAME=JSON` of each; what is no JSON is a text. Raises InputError."""
    found: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name.isidentifier():
            todo = "write it as in --template-arg enable_thinking=false"
            raise InputError("--template-arg", expected="NAME=JSON", found=repr(item[:60]), todo=todo)
        try:
            parsed = parse_json(f'{{"value": {value}}}'.encode("utf-8", "replace"), name)
        except InputError:
            parsed = {}
        found[name] = parsed["value"] if len(parsed) == 1 else value  # of two it is no value: `1, "b": 2`
    return found
