"""Milliseconds that a token takes to sample from 131072 logits, in Python and in C++, and whether the ids are equal.

    python tests/bench/sampling.py [--tokens 300] [--program BUILD/tests/sampler_probe] [--check]

The program is built with the C++ tests (`cmake -DCMAKE_BUILD_TYPE=Release`, `cmake --build BUILD --target
sampler_probe`). On a machine that does other work too the least is nearer to the truth than the median. With --check it
ends with 1 where the least of a language is above what its logits may take, or ids differ.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from elastic_runtime.sampling import Sampler, Sampling
from sampler_probe import Answer, Case, ask

V = 131072
#: temperature, top_k, top_p
SETTINGS = {
    "0.6, top-p 0.95": (0.6, 0, 0.95),
    "1.0": (1.0, 0, 1.0),
    "0.7, top-k 40": (0.7, 40, 1.0),
    "1.0, top-k 50, top-p 0.9": (1.0, 50, 0.9),
}


def logits() -> dict[str, tuple[float, np.ndarray]]:
    """By name, the milliseconds a token may take, and the logits."""
    rng = np.random.default_rng(1)
    normal = rng.normal(size=V)
    peaked = normal * 2.2  # 2,000 candidates reach above what weighs nothing
    peaked[rng.permutation(V)[:2000]] += 30
    return {
        "peaked": (1.0, peaked.astype(np.float32)),
        "all equal": (5.0, np.full(V, 1.5, np.float32)),
        "N(0, 1)": (5.0, normal.astype(np.float32)),
        "N(0, 1) of bfloat16": (5.0, (np.round(normal * 64) / 64).astype(np.float32)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--program", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    failed = False
    for name, (most, row) in logits().items():
        for setting, (temperature, top_k, top_p) in SETTINGS.items():
            case = Case(row, Sampling(temperature, top_k, top_p, seed=7), arguments.tokens)
            found = {"Python": _python(case)}
            if arguments.program:
                found["C++"] = ask(arguments.program, [case])[0]
            equal = len({tuple(answer.ids) for answer in found.values()}) == 1
            failed |= not equal or any(answer.least > most for answer in found.values())
            times = ", ".join(f"{who} {a.least:.2f} least {a.median:.2f} median" for who, a in found.items())
            ids = "" if len(found) == 1 else ", ids equal" if equal else ", IDS DIFFER"
            print(f"{name:20s} {setting:25s} {times} (ms){ids}; at most {most:g}")
    sys.exit(1 if failed and arguments.check else 0)


def _python(case: Case) -> Answer:
    sampler, ids, times = Sampler(case.sampling), list[int](), list[float]()
    for _ in range(case.draws):
        start = time.perf_counter()
        ids.append(sampler.sample(case.logits))
        times.append((time.perf_counter() - start) * 1e3)
    return Answer(ids, min(times), statistics.median(times))


if __name__ == "__main__":
    main()
