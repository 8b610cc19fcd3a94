"""Talks with the program of tests/cpp/sampler_probe.cpp: the sampler of C++ gets the cases of that of Python."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from elastic_runtime.sampling import Sampling


class Case(NamedTuple):
    """Logits [V], settings, and how many tokens to draw."""

    logits: npt.NDArray[np.floating[Any]]
    sampling: Sampling
    draws: int


class Answer(NamedTuple):
    """The ids drawn, and milliseconds a token: the least and the median."""

    ids: list[int]
    least: float
    median: float


def ask(program: Path, cases: Sequence[Case]) -> list[Answer]:
    """What the program draws, case by case."""
    given = b"".join(_packed(case) for case in cases)
    said = subprocess.run([program], input=given, capture_output=True, check=True).stdout.decode()
    answers = []
    for line in said.splitlines():
        ids, times = line.split("|")
        answers.append(Answer([int(word) for word in ids.split()], *map(float, times.split())))
    return answers


def _packed(case: Case) -> bytes:
    s, logits = case.sampling, case.logits.astype(np.float32)
    return struct.pack("=qdqdQq", logits.size, s.temperature, s.top_k, s.top_p, s.seed, case.draws) + logits.tobytes()
