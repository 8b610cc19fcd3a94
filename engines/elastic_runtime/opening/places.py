"""Where a session may run, as far as that does not depend on the budget."""

from __future__ import annotations

from elastic_runtime.backend import Backend
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import Card, card, find_card, why_no_card
from elastic_runtime.errors import InputError, UnavailableError
from elastic_runtime.opening.told import Say, running_on, why_cpu
from elastic_runtime.ort.open_onnx import OnnxCard, given_back, onnx_card
from elastic_runtime.session_request import Request

Place = Card | OnnxCard | None  # a card for an engine, a card for onnxruntime, the CPU


class Places:
    """The places of one request; it remembers why no engine runs on a card that the bundle has engines for.

    Args:
        bundle: an opened bundle.
        request: what to open.
        say: hears why the CPU is taken.
    """

    def __init__(self, bundle: Bundle, request: Request, say: Say) -> None:
        self._bundle, self._request, self._say = bundle, request, say
        self._no_engine: UnavailableError | None = None

    def find(self, *, quiet: bool = False) -> Place:
        """The first place to try.

        Raises:
            InputError: an engine on the CPU is asked for.
            UnavailableError: a card that is asked for is not there.
        """
        request = self._request
        if request.backend == "tensorrt-rtx":
            if request.device == "cpu":
                expected, todo = "auto or gpu for the backend tensorrt-rtx", "take the backend onnxruntime for the CPU"
                raise InputError("device", expected=expected, found="cpu", todo=todo)
            return _card_for_an_engine()
        if request.device == "cpu":
            return None
        found = find_card()
        if request.backend == "auto" and found and found.compute_capability in self._served():
            return found
        return self.without_engine(found, quiet=quiet)

    def again(self, place: Place) -> Place:
        """Where a switch starts: on a place of the kind that the open session has, with what is free there now.

        A session that fell back from an engine would fall back again, and a switch refuses to.
        """
        if isinstance(place, Card):
            return self.find(quiet=True)
        return None if place is None else self.without_engine(find_card(), self._no_engine, quiet=True)

    def after_closing(self, place: Place) -> Place:
        """The place again after a session has closed.

        An engine's memory is free then. onnxruntime keeps what its values on a card took, for values to come: the
        driver counts that as used, so the reckoning from before stands.
        """
        return self.find(quiet=True) if isinstance(place, Card) else place

    def now(self, found: Card) -> Card:
        """The card with what is free there by now."""
        return find_card() or found

    def with_what_returns(self, place: OnnxCard, backend: Backend) -> OnnxCard:
        """The place as it will be once the backend has closed."""
        return given_back(place, backend, self._request.vram)

    def without_engine(
        self, found: Card | None, reason: UnavailableError | None = None, *, quiet: bool = False
    ) -> Place:
        """What comes after the engines: the card under onnxruntime, else the CPU.

        Args:
            found: the card.
            reason: why none of the engines for it serves.
            quiet: nobody is to hear of the CPU.

        Raises:
            UnavailableError: the reason, where an engine was asked for; why onnxruntime does not take the card, where
                the card was.
        """
        if reason is not None and self._request.backend != "auto":
            raise reason
        self._no_engine = reason
        try:
            return onnx_card(found, vram=self._request.vram, weights=self._request.weights)
        except UnavailableError as error:
            self.fall_back(found, error, quiet=quiet)
            return None

    def fall_back(self, found: Card | None, error: UnavailableError, *, quiet: bool = False) -> None:
        """Say why the CPU is taken. Raises the error where the card was asked for."""
        no_card = why_no_card() if found is None else None
        if self._request.device == "gpu" and self._no_engine is not None:  # which is why onnxruntime was asked at all
            found_ = f"{error.found}; no engine runs here: {self._no_engine}"
            raise UnavailableError(error.subject, expected=error.expected, found=found_, todo=error.todo)
        if self._request.device == "gpu":
            raise error if no_card is None else _without_card("device gpu", no_card, "run on the CPU (--device cpu)")
        if not quiet:
            served = self._served() if self._request.backend == "auto" else None
            self._say(why_cpu(found, served, error, self._no_engine, no_card))

    def say_running_on(self, place: OnnxCard) -> None:
        """Say that onnxruntime computes on the card, and why no engine does."""
        self._say(running_on(place.card, self._no_engine))

    def to_reckon_with(self) -> Card | None:
        """The card whose memory counts; None where memory was named and no card here has engines in the bundle.

        Raises:
            InputError: no card, and no memory named.
        """
        if self._request.vram is None:
            return card()
        found = find_card()
        return found if found and found.compute_capability in self._served() else None

    def _served(self) -> set[str]:
        return {c for b in self._bundle.budgets for e in b.engines for c in e.compute_capabilities}


def _card_for_an_engine() -> Card:
    """The card. Raises UnavailableError where there is none: naming its memory, as `card` advises, makes none."""
    try:
        return card()
    except InputError as error:
        raise _without_card("the backend tensorrt-rtx", error, "take the backend onnxruntime") from error


def _without_card(subject: str, error: InputError, instead: str) -> UnavailableError:
    """The reason why there is no card, of what was asked for by name."""
    todo = f"look at the driver and CUDA_VISIBLE_DEVICES, or {instead}"
    return UnavailableError(subject, expected=error.expected, found=error.found, todo=todo)
