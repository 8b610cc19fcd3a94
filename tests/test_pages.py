"""Every page of the repository: its links and anchors lead somewhere, and its commands have the options they name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from elastic_export.cli.main import cli
from elastic_runtime.cli.run import command as elastic_run

ROOT = Path(__file__).parents[1]
FOLDERS = ("engines", "exporter", "plugins", "tests")
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
_PROSE = re.compile(r"^```.*?^```$|^ {4}.*?$|`[^`]*`", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"\b(elastic-export|elastic-run)\b((?:(?! && | \| | # )[^`;])*)")
_SCRIPT = re.compile(r"(PYTHONPATH=\S+ )?python (tests/[\w/]+\.py)")


def anchors(page: str) -> set[str]:
    """What `#` may name: the headings as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(path: Path, page: str) -> list[str]:
    """Links of a page to files that are not there, or to headings that they do not have."""
    found = []
    for link in re.findall(r"\]\(([^()\s]+)\)", _PROSE.sub("", page)):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not link.startswith("https://") and (
            not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8")))
        ):
            found.append(link)
    return found


def code(page: str) -> Iterator[str]:
    """The lines of its blocks, and what stands between backticks, each in one line."""
    blocks = re.findall(r"^```.*?^```$|^ {4}.*?$", page, re.MULTILINE | re.DOTALL)
    yield from (line for block in blocks for line in block.splitlines())
    yield from (
        " ".join(span.split())
        for span in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", page, flags=re.M | re.S))
    )


def unknown_options(page: str) -> Iterator[str]:
    """Options that a page gives to a command that does not take them, as `command: option`."""
    for program, rest in (found for piece in code(page) for found in _COMMAND.findall(piece)):
        taken: click.Command = cli if program == "elastic-export" else elastic_run
        words = rest.split()
        while isinstance(taken, click.Group) and words and words[0] in taken.commands:
            taken = taken.commands[words.pop(0)]
        known = {option for parameter in taken.params for option in parameter.opts} | {"-h", "--help"}
        for option in (found[0] for word in words if (found := re.match("--[a-z-]+", word))):
            if option not in known:
                yield f"{program} {taken.name}: {option}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_leads_nowhere_dead(path: Path) -> None:
    page = path.read_text("utf-8")
    assert not dead_links(path, page)
    assert not list(unknown_options(page))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_script_is_called_as_it_says_itself(path: Path) -> None:
    page = path.read_text("utf-8")
    for prefix, script in _SCRIPT.findall(page):
        usage = ast.get_docstring(ast.parse((ROOT / script).read_text("utf-8"))) or ""
        asked = {told for told, other in _SCRIPT.findall(usage) if other == script}
        assert not asked or prefix in asked or "export PYTHONPATH" in page, script


def test_what_is_dead_is_noticed() -> None:
    path = ROOT / "README.md"
    assert not dead_links(
        path, "[a](#start) [b](engines/README.md#python) [c](https://x.org/#y) `[d](gone)`\n\n# Start"
    )
    page = "[a](#gone) [b](engines/gone.md) [c](engines/README.md#gone)"
    assert dead_links(path, page) == ["#gone", "engines/gone.md", "engines/README.md#gone"]
    page = (
        "`elastic-export plan --matrix\n--verify`\n\n    elastic-export budgets derive --gone\n    elastic-run B --no=1"
    )
    assert sorted(unknown_options(page)) == [
        "elastic-export derive: --gone",
        "elastic-export plan: --verify",
        "elastic-run command: --no",
    ]
