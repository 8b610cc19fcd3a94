"""Kernels of the mixer broken on purpose: how they are built and run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mamba2_mixer.testing.cases import Case, errors, matrix, tolerances
from mamba2_mixer.testing.runner import PLUGINS, CaseError, HostBuild, run_case
from patches import pattern

#: Units of the build.
FLOAT32, SCAN = "mamba2_mixer/launch_float32.cu", "mamba2_mixer/launch_scan.cu"
CHUNK, RESIDENT = "mamba2_mixer/launch_chunk.cu", "mamba2_mixer/launch_resident.cu"


@dataclass(frozen=True)
class Mutation:
    """Replaces all `count` of `old` by `new` in a file of mamba2_mixer/; `units`: what to rebuild."""

    file: str
    old: str
    new: str
    units: tuple[str, ...] = (FLOAT32,)
    count: int = 1


def build_mutant(mutation: Mutation, build: HostBuild, objects: dict[str, Path], folder: Path) -> Path:
    plugins = folder / "plugins"
    shutil.copytree(PLUGINS, plugins, ignore=shutil.ignore_patterns("__pycache__", "build*"))
    path = plugins / "mamba2_mixer" / mutation.file
    text = path.read_text()
    patched, count = re.subn(pattern(mutation.old), lambda _: mutation.new, text)
    assert count == mutation.count, f"{mutation.file} holds {count} of {mutation.old!r}"
    path.write_text(patched)
    # A mutant runs a few cases: to optimise it takes g++ longer than that gains.
    fresh = replace(build, plugins=plugins, strict=False, optimize=False).compile(mutation.units, folder)
    return build.link({**objects, **fresh}.values(), folder / "mutant")


def catch(runner: Path, case: Case, folder: Path) -> str:
    """Why the case fails, empty when it passes."""
    try:
        data, result = run_case([str(runner)], case, folder)
    except CaseError as error:
        return str(error)
    found, bounds = errors(case, data, result), tolerances(case)
    return "".join(f"{name} {error:g} " for name, error in found.items() if not error <= bounds[name])


def why_caught(mutant: Path, folder: Path, suite: tuple[str, ...]) -> str:
    """Why a row fails. Several seeds: a missing barrier shows only when the order of threads brings it out."""
    rows = matrix()
    tried = (catch(mutant, replace(rows[row], seed=seed), folder) for seed in range(2) for row in suite)
    return next(filter(None, tried), "")


def check_patterns(mutations: Mapping[str, Mutation]) -> None:
    """Whether each finds its lines."""
    for name, mutation in mutations.items():
        text = (PLUGINS / "mamba2_mixer" / mutation.file).read_text()
        assert len(re.findall(pattern(mutation.old), text)) == mutation.count, name
