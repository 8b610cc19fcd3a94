"""A session as it stood at one moment, to go back to."""

from __future__ import annotations

from dataclasses import dataclass

from elastic_runtime.backend import Backend, DeviceName, Floats, Origin, SavedStates
from elastic_runtime.errors import InputError


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What `Session.snapshot` gives and `Session.restore` takes, as often as one likes: nothing changes it.

    It holds the model's states, of caches only the rows that are used, the logits and the transcript: in bytes, for B
    rows of which the longest has P tokens, B * (state bytes + P * KV bytes a token) of the backend's dtype, and
    4 * B * V. Its memory goes with the last reference to it, or with `close`; that on a card also with the session.

    `origin`, `backend`, `context` and `tokens` say which sessions can take it.
    """

    origin: Origin
    backend: str
    context: int
    tokens: tuple[tuple[int, ...], ...]
    pending: tuple[int | None, ...]
    logits: Floats
    states: SavedStates

    @property
    def batch(self) -> int:
        """Rows."""
        return len(self.tokens)

    @property
    def device(self) -> DeviceName:
        """Where the states lie; the rest is in main memory."""
        return self.states.device

    @property
    def nbytes(self) -> int:
        """Bytes of the states and of the logits."""
        return self.states.nbytes + self.logits.nbytes

    def close(self) -> None:
        """Give the memory of the states back; it cannot be restored then."""
        self.states.free()


def check_same(snapshot: Snapshot, backend: Backend, batch: int) -> None:
    """Whether a session of that backend and as many rows could have taken it. Raises InputError about what differs."""
    if not isinstance(snapshot, Snapshot):
        todo = "give what Session.snapshot gave"
        raise InputError("snapshot", expected="a Snapshot", found=type(snapshot).__name__, todo=todo)
    for what, mine, its in (
        ("bundle", backend.origin.bundle, snapshot.origin.bundle),
        ("budget", backend.origin.budget, snapshot.origin.budget),
        ("backend", backend.name, snapshot.backend),
        ("context", backend.max_context, snapshot.context),
        ("batch", batch, snapshot.batch),
    ):
        if its != mine:
            todo = "restore it where it was taken, or prefill again"
            raise InputError(f"snapshot's {what}", expected=str(mine) or "none", found=str(its) or "none", todo=todo)
