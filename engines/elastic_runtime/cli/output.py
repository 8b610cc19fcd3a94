"""What `elastic-run` prints: tokens as they come to standard output, notes to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence

import click

from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.generation import Finish, Piece
from elastic_runtime.session import Session


def say(text: str) -> None:
    """A note for people; what was asked for goes to standard output."""
    click.echo(text, err=True)


def write_text(piece: Piece) -> None:
    """Text as it comes; sys.stdout, since a token must not wait for a line."""
    sys.stdout.buffer.write(piece.text.encode("utf-8"))
    sys.stdout.buffer.flush()


def write_id(piece: Piece) -> None:
    """The id as it comes."""
    sys.stdout.write(f"{piece.id} ")
    sys.stdout.flush()


def write_all(pieces: Iterable[Piece], write: Callable[[Piece], None]) -> Finish | None:
    """Write them and end the line; returns why they ended."""
    finish: Finish | None = None
    for piece in pieces:
        write(piece)
        finish = piece.finish
    click.echo()
    return finish


def as_json(pieces: Sequence[Piece], session: Session, budget: BudgetEntry | None, said: Sequence[str]) -> str:
    """A generation for programs: what was said on standard error meanwhile is among it."""
    found = {
        "text": "".join(piece.text for piece in pieces),
        "ids": [piece.id for piece in pieces],
        "finish": pieces[-1].finish if pieces else None,
        "budget": budget.name if budget else None,
        "backend": session.backend.name,
        "device": session.backend.device,
        "warnings": list(said),
    }
    return json.dumps(found, indent=1, ensure_ascii=False)
