"""What people hear of a choice: which way was taken, and why no better one."""

from __future__ import annotations

from collections.abc import Callable

from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import ElasticError, UnavailableError

Say = Callable[[str], None]


def ignore(text: str) -> None:
    """Nobody listens."""


def running_on(card: Card, no_engine: UnavailableError | None) -> str:
    """That onnxruntime computes on the card, and why no engine does although there is one for it."""
    reason = "" if no_engine is None else f"; no engine runs here: {no_engine}"
    return f"running on {card.name} with onnxruntime, in float32 arithmetic{reason}"


def why_cpu(
    found: Card | None,
    served: set[str] | None,
    error: UnavailableError,
    no_engine: UnavailableError | None = None,
    no_card: ElasticError | None = None,
) -> str:
    """Why the CPU computes.

    Args:
        found: the card, if there is one.
        served: the classes that engines are for; None where none was wanted.
        error: why onnxruntime does not take the card.
        no_engine: why none of the engines for the card runs there.
        no_card: why a driver that is here shows no card.
    """
    if found is None:
        reason = "" if no_card is None else f"; {no_card}"
        return f"no NVIDIA card here: running on the CPU with onnxruntime, in float32 arithmetic{reason}"
    engines = (
        ""
        if served is None or found.compute_capability in served
        else f" has compute capability {found.compute_capability}, the engines are for {', '.join(sorted(served))}"
    )
    reason = "" if no_engine is None else f"; no engine runs here: {no_engine}"
    return (
        f"{found.name}{engines}: running on the CPU with onnxruntime, in float32 arithmetic; on the card it "
        f"expected {error.expected}, found {error.found}{reason}"
    )
