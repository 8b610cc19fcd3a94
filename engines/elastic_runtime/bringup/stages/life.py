"""Stage `life`: whether the card's memory comes back."""

from __future__ import annotations

from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.results import Found
from elastic_runtime.driver.free_memory import find_card


def run(place: Place) -> Found:
    """Opened and closed five times; bytes free after each."""
    free = []
    for _ in range(5):
        place.backend().close()
        found = find_card()
        free.append(found.free if found else 0)
    return {"free_after_close": free, "lost": free[0] - free[-1]}
