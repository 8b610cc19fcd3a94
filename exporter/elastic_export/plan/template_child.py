"""The process that renders chat templates, with the number of seconds that it has: see template_trial.py.

A line in is a conversation as JSON; a line out says what came of it, without the text.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

from elastic_runtime.errors import InputError
from elastic_runtime.text.chat_template import render

_MEMORY = 1 << 30  # bytes: a template that multiplies a text is no reason to press others out of theirs


def main() -> None:
    """Answer until the parent has no more."""
    # No timer: a template may compute one number for ever, and the interpreter looks at a signal when it has it.
    _limit(resource.RLIMIT_CPU, int(sys.argv[1]))
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, _MEMORY)
    for line in sys.stdin:
        print(json.dumps(_answer(**json.loads(line))), flush=True)


def _answer(template: str, messages: list[dict[str, Any]], values: dict[str, Any]) -> dict[str, str]:
    try:
        render(template, messages, values)
    except InputError as error:
        return {"kind": type(error.__cause__).__name__, "expected": error.expected, "found": error.found}
    return {}


def _limit(what: int, most: int) -> None:
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if soft == resource.RLIM_INFINITY else min(soft, most), hard))


if __name__ == "__main__":
    main()
