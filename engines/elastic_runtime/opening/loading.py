"""The backend of a budget on its place, and of the next best thing where only loading shows that it does not run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from traceback import clear_frames
from typing import TypeVar

from elastic_runtime.backend import Backend
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import NoCudaError, UnavailableError
from elastic_runtime.format.forms import form_name
from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.format.mapped import MappedFile
from elastic_runtime.opening.candidates import Candidates
from elastic_runtime.opening.places import Place, Places
from elastic_runtime.opening.told import Say
from elastic_runtime.ort.open_onnx import MAX_BATCH, OnnxCard, open_onnx
from elastic_runtime.session import Session
from elastic_runtime.session_request import Request

T = TypeVar("T")


class Loader:
    """Loads budgets for one request; files that budgets share stay mapped from one to the next.

    Args:
        bundle: an opened bundle.
        request: what to open.
        places: of the request.
        candidates: of the request.
        say: hears of warnings.

    Attributes:
        files: those that are mapped.
        place: of the last backend that was loaded.
    """

    def __init__(self, bundle: Bundle, request: Request, places: Places, candidates: Candidates, say: Say) -> None:
        self._bundle, self._request, self._say = bundle, request, say
        self._places, self._candidates = places, candidates
        self.files: dict[Path, MappedFile] = {}
        self.place: Place = None

    def load(
        self,
        name: str,
        budget: BudgetEntry,
        place: Place,
        at_least: int = 1,
        rows: int | None = None,
        *,
        switching: bool = False,
    ) -> tuple[BudgetEntry, Place, Backend]:
        """The backend, of what was settled; where only loading shows that it does not run, of the next best thing.

        After an engine, as if it were not there, on the memory that is free by now; after the card under onnxruntime,
        the CPU. What has no room may be weights or states, which are made here for as many rows as the session will
        have. But a switch whose new budget finds no room on the card fails: the old one goes on there. Arguments and
        errors as `Candidates.settle`.
        """
        failed = dict[str, UnavailableError]()
        while True:
            try:
                return budget, place, self.backend(budget, place, at_least, rows)
            except UnavailableError as error:
                clear_frames(error.__traceback__)  # what they hold of the one that failed counts as taken
                if isinstance(place, OnnxCard) and (isinstance(error, NoCudaError) or not switching):
                    self._places.fall_back(place.card, error)
                    budget, place = self._candidates.settle(name, None, at_least, rows, switching=switching)
                    continue
                if not isinstance(place, Card):
                    raise
                from elastic_runtime.tensorrt.open_tensorrt import select_engine  # noqa: PLC0415

                failed[select_engine(budget, self._request, place, at_least=at_least).file] = error
                settle, place = self._candidates.settle, self._places.now(place)
                budget, place = settle(name, place, at_least, rows, switching=switching, failed=failed)

    def again(self, budget: BudgetEntry, place: Place, at_least: int, rows: int) -> Backend:
        """The backend of a budget that was open, in that form and no other. Errors as `load`."""
        name = form_name(budget, self._bundle.manifest.precision)
        return self.load(name, budget, place, at_least, rows, switching=True)[2]

    def backend(self, budget: BudgetEntry, place: Place, at_least: int = 1, rows: int | None = None) -> Backend:
        """The backend there."""
        backend = self._open(budget, place, at_least, rows)
        self.place = place
        return backend

    def _open(self, budget: BudgetEntry, place: Place, at_least: int, rows: int | None) -> Backend:
        request = self._request
        if isinstance(place, Card):
            from elastic_runtime.tensorrt.open_tensorrt import open_tensorrt  # noqa: PLC0415  # only where there is a card

            return open_tensorrt(
                self._bundle, budget, request, place, at_least=at_least, files=self.files, say=self._say
            )
        return open_onnx(
            self._bundle,
            budget,
            context=request.context,
            at_least=at_least,
            rows=rows or request.batch,
            batch=max(MAX_BATCH, request.batch),
            weights=request.weights,
            threads=request.threads,
            files=self.files,
            place=place,
        )


def session_on(backend: Backend, rows: int) -> Session:
    """A session; the backend is closed where there cannot be one."""
    return closing_on_failure(backend, lambda: Session(backend, batch=rows))


def closing_on_failure(backend: Backend, work: Callable[[], T]) -> T:
    """What the work gives; the backend is closed where it fails."""
    try:
        return work()
    except BaseException:
        backend.close()
        raise
