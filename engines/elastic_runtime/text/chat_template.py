"""Chat templates: which one a folder has, and the environment they are written for, that of transformers.

Needs `jinja2`. A template may say `break` and `continue`, mark what the assistant says with `generation` (which passes
its content on), refuse with `raise_exception`, ask for the date with `strftime_now`, and write JSON with `tojson`,
which leaves `<`, `>`, `&` and letters beyond ASCII as they are. It cannot reach beyond the values that it is given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from elastic_runtime.errors import InputError
from elastic_runtime.text.files import TEMPLATES

_CORRECT = "correct it in the checkpoint and export again"
#: Names that a message's reasoning has been given; templates read the first.
_REASONING = ("reasoning_content", "thinking", "reasoning")


def find_template(folder: Path, config: Mapping[str, Any], *, tools: bool) -> str | None:
    """The template for a conversation with or without tools; None where there is none.

    Files go before tokenizer_config.json. Of several with names it is `tool_use`, with tools, else `default`.

    Raises:
        InputError: a file that is no UTF-8.
    """
    named = {path.stem: _read(path) for path in sorted((folder / TEMPLATES).glob("*.jinja"))}
    single = folder / "chat_template.jinja"
    named |= {"default": _read(single)} if single.is_file() else {}
    found: object = named or config.get("chat_template")
    if isinstance(found, list):
        found = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
    if isinstance(found, dict):
        found = found.get("tool_use" if tools and "tool_use" in found else "default")
    return found if isinstance(found, str) else None


def render(template: str, messages: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> str:
    """The text that a template makes of a conversation; `values` are what else it sees.

    Raises:
        InputError: the template refuses the messages, or is none.
    """
    try:
        return template_environment().from_string(template).render({**values, "messages": _plain(messages)})
    except Exception as error:  # a template computes: it may divide by zero or count beyond all bounds
        found = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
        raise InputError(
            "chat template",
            expected="a template that takes the messages",
            found=found,
            todo="use --prompt, or correct the template in the checkpoint and export again",
        ) from error


def template_environment() -> ImmutableSandboxedEnvironment:
    """A sandbox with all that a chat template may use."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _now
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _Namespace
    return environment


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` around what the assistant says: a mark for training, nothing here."""

    tags = {"generation"}  # noqa: RUF012  # as the base class has it

    def parse(self, parser: Parser) -> nodes.Node:
        """Its content, in a scope of its own as transformers' block has."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_passed", [])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _passed(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """`dict` without the attributes of a class, which lead out of a sandbox."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """As of `dict`."""
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """`namespace` that takes no names of Python's own."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # so that `self` may be a name in it, as in jinja2
        self, rest = args[0], args[1:]
        found = dict(*rest, **kwargs)
        for name in found:
            _check_attribute(name)
        Namespace.__init__(self, found)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)


def _check_attribute(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"{name!r}: a name that begins with an underscore")


def _plain(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies of the messages without what is null, for templates write `None` of it, reasoning under its names."""
    found = []
    for message in messages:
        plain = {key: value for key, value in message.items() if value is not None}
        reasoning = next((plain[name] for name in _REASONING if name in plain), None)
        if reasoning is not None:
            plain = {"thinking": reasoning, **plain, "reasoning_content": reasoning}
        found.append(plain)
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        where = f"an invalid byte at {error.start}"
        raise InputError(str(path), expected="UTF-8", found=where, todo=_CORRECT) from None


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON for a model to read; jinja2's own is for a page of HTML, and escapes."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
