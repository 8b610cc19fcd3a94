"""Stage `speed`: decode along the context, prefill of every length, uploads, sampling, memory beside the reckoning."""

from __future__ import annotations

import time
from contextlib import closing
from functools import partial

import numpy as np
import numpy.typing as npt

from elastic_runtime.bringup.modes import time_enqueues
from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.results import Found
from elastic_runtime.bringup.stages.measuring import Watch, spread, timed
from elastic_runtime.fit.vram import vram_needed
from elastic_runtime.format.records import encode
from elastic_runtime.sampling import Sampler, Sampling
from elastic_runtime.tensorrt.backend_tensorrt import EngineBackend
from elastic_runtime.tensorrt.call_size import SIZES
from elastic_runtime.tensorrt.open_tensorrt import load_weights
from elastic_runtime.tensorrt.preflight import load_tensorrt

_STEPS = 256
_MIDDLE = 4096  # tokens, or the last place where the steps still fit
_AGAIN = 3  # the first of a length compiles its kernels, or reads them
_SAMPLINGS = {"greedy": Sampling(), "top_p": Sampling(0.6, 0, 0.95, 1)}


def run(place: Place) -> Found:
    """Seconds of whole calls, logits in main memory at their end."""
    _, budget, engine = place.opened()
    found: Found = {"upload": _upload(place)}
    enqueues = time_enqueues(load_tensorrt)
    with Watch() as watch:
        started = time.perf_counter()
        with closing(place.backend()) as backend:
            found["open_seconds"] = time.perf_counter() - started
            found |= {"decode_seconds": _decode(backend, enqueues), "prefill_seconds": _prefill(backend)}
            found["sample_seconds"] = _sample(_first_logits(backend))
            watch.look()
            held = dict(backend.memory())
    need = vram_needed(budget.size(engine), context=engine.max_context, batch=1)
    return found | {"memory": {"taken_at_most": watch.taken, "reckoned": encode(need), "by_the_runtime": held}}


def _upload(place: Place) -> Found | None:
    """All weights, from the files to the card as a session brings them there; None where they are inside the engine."""
    bundle, budget, engine = place.opened()
    if budget.weights is None:
        return None
    with place.engine_alone(print) as (device, opened):
        started = time.perf_counter()
        arena = load_weights(opened, device, bundle, budget, engine)
        seconds = time.perf_counter() - started
        arena.free()
    return {"bytes": arena.nbytes, "seconds": seconds, "bytes_per_second": arena.nbytes / seconds}


def _decode(backend: EngineBackend, enqueues: list[float]) -> Found:
    """By where the steps begin: at the beginning, in the middle, at the end of the context.

    Whole steps, and of each the part until the card has its work; of steps that this runtime recorded that part is not
    known.
    """
    ids, one, found = np.ones((1, 1), np.int64), np.ones(1, np.int64), Found()
    steps = min(_STEPS, backend.max_context)
    last = backend.max_context - steps
    for start in sorted({0, min(_MIDDLE, last), last}):
        backend.start(1)
        enqueues.clear()
        times = [timed(partial(backend.call, ids, np.array([at]), one)) for at in range(start, start + steps)]
        found[str(start)] = spread(times) | {"enqueue": spread(enqueues) if len(enqueues) == steps else None}
    return found


def _prefill(backend: EngineBackend) -> Found:
    """By T: the seconds of the first call and of those after it."""
    found = Found()
    for tokens in (size for size in SIZES if 1 < size <= min(backend.max_tokens, backend.max_context)):
        backend.start(1)
        call = partial(backend.call, np.ones((1, tokens), np.int64), np.zeros(1, np.int64), np.array([tokens]))
        found[str(tokens)] = [timed(call) for _ in range(_AGAIN)]
    return found


def _first_logits(backend: EngineBackend) -> npt.NDArray[np.float32]:
    backend.start(1)
    logits = backend.call(np.ones((1, 1), np.int64), np.zeros(1, np.int64), np.ones(1, np.int64))
    return np.array(logits[0])


def _sample(logits: npt.NDArray[np.float32]) -> Found:
    found = Found()
    for name, sampling in _SAMPLINGS.items():
        draw = partial(Sampler(sampling).sample, logits)
        found[name] = spread([timed(draw) for _ in range(_STEPS // 4)])
    return found
