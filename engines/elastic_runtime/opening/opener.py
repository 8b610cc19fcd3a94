"""Opens the budgets of one bundle for one request."""

from __future__ import annotations

from pathlib import Path

from elastic_runtime.backend import Floats
from elastic_runtime.bundle import Bundle
from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.opening.candidates import Candidates
from elastic_runtime.opening.loading import Loader, session_on
from elastic_runtime.opening.places import Places
from elastic_runtime.opening.switching import Switch, Switching
from elastic_runtime.opening.told import Say, ignore
from elastic_runtime.ort.open_onnx import OnnxCard
from elastic_runtime.session import Session
from elastic_runtime.session_request import Request


def open(bundle: Bundle | Path | str, request: Request | None = None, *, say: Say = ignore) -> Session:  # noqa: A001
    """A session on a bundle, for whoever stays with the budget that is chosen; an `Opener` can switch to another one.

    Args:
        bundle: opened already, or its folder, which `Bundle.open` then checks.
        request: what to open; without one the largest budget that fits here, with the largest context that does.
        say: hears of choices and warnings.

    Raises:
        InputError: not a bundle, or no such budget in it.
        BuildError: a file is damaged, nothing fits, or the backend cannot run here; the text says why.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    return Opener(opened, request or Request(), say).open()


class Opener:
    """Opens budgets of one bundle; files that budgets share stay mapped from one to the next.

    Args:
        bundle: an opened bundle.
        request: what to open; its budget is the first one's.
        say: hears of choices and warnings.
    """

    def __init__(self, bundle: Bundle, request: Request, say: Say = ignore) -> None:
        self.bundle, self.request = bundle, request
        self.budget: BudgetEntry | None = None
        self._places = Places(bundle, request, say)
        self._candidates = Candidates(bundle, request, self._places, say)
        self._loader = Loader(bundle, request, self._places, self._candidates, say)
        self._switching = Switching(self._places, self._candidates, self._loader)

    def open(self, name: str | None = None) -> Session:
        """A session of the budget of that name, or of the request's.

        Raises:
            InputError: no such budget.
            BuildError: nothing fits, or the backend cannot run here; the text says why.
        """
        wish = name or self.request.budget
        budget, place = self._candidates.settle(wish, self._places.find())
        budget, place, backend = self._loader.load(wish, budget, place)
        opened = session_on(backend, self.request.batch)
        self.budget = budget
        if opened.backend.device == "gpu" and isinstance(place, OnnxCard):
            self._places.say_running_on(place)
        return opened

    def switch(self, session: Session, name: str) -> tuple[Session, Floats, Switch]:
        """Open another budget and feed it the transcript of every row again; pending tokens stay so.

        Choice, memory and context are checked before the old budget is closed. Where opening the new one fails all the
        same, or closing the old one, it is opened again under the same session, its transcript fed again, and the error
        goes on.

        Returns:
            The new session, its logits [B, V] after each row's last token, and what it cost.

        Raises:
            InputError: no such budget.
            BuildError: it cannot run here with that transcript; `session` still can.
            LostError: nor could the old one be opened again; `session` is closed.
        """
        self.budget, opened, logits, cost = self._switching.switch(session, self.budget, name)
        return opened, logits, cost

    def explain(self) -> str:
        """The reckoning of every budget at the memory given or free, and what `open` would come to as far as it shows
        before anything is loaded. Raises InputError where no memory is known.
        """
        places = Places(self.bundle, self.request, ignore)  # nothing is opened, so nobody is to hear of it
        return Candidates(self.bundle, self.request, places, ignore).explain(places.to_reckon_with())
