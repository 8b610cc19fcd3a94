"""Opening a session on a bundle: which budget, which backend, and switching to another budget later.

told.py        what people hear of a choice
places.py      where: a card for an engine, a card for onnxruntime, the CPU
candidates.py  which budget there, and what comes next where it does not run
loading.py     its backend, and the next one where only loading shows that it does not run
switching.py   another budget under the same transcript
opener.py      all of it for one request
"""

from elastic_runtime.opening.opener import Opener, open  # noqa: A004
from elastic_runtime.opening.switching import LostError, Switch

__all__ = ["LostError", "Opener", "Switch", "open"]
