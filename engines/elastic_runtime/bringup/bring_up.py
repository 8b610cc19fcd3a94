"""`elastic-run --bring-up BUNDLE`: the first run on a card, in stages, and a report to send to whoever mends things.

Each stage is a process of its own with a time limit: a crash or a hang inside TensorRT ends that stage and no other.
Its JSON is on disk before the next begins. At the end there are a page of text and a zip of all.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elastic_runtime.bringup.stages import STAGES, TRUSTED, Place
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import Card, find_card
from elastic_runtime.errors import InputError

Say = Callable[[str], None]
#: Of TensorRT for RTX 1.7: its own ComputeCapability, and its support matrix.
_RTX = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
_TAIL = 2000  # characters of a log that go into the text of a stage that crashed


@dataclass(frozen=True)
class Step:
    """A stage that was run, of an engine or of none (empty). `result` holds `found`, `error` or `ended` (how)."""

    name: str
    engine: str
    seconds: float
    result: dict[str, Any]

    def text(self) -> str:
        """One line."""
        what = f"{self.name} {self.engine}".strip()
        if "found" in self.result:
            return f"{what}: done in {self.seconds:.1f} s"
        return f"{what}: {self.result.get('error') or self.result['ended']}"


def bring_up(
    path: Path,
    out: Path,
    *,
    plugins: Path | None = None,
    trust_engine: bool = False,
    external: Path | None = None,
    minutes: float = 12,
    say: Say,
) -> list[Step]:
    """Try the bundle on the card of this machine and leave a report.

    Args:
        path: the bundle.
        out: the zip to write; the stages' files lie beside it, in a folder of its name.
        plugins: a folder of plugin libraries.
        trust_engine: the caller vouches for the libraries inside engines.
        external: the folder of the parent's shards where the bundle only names them.
        minutes: after which no stage is begun any more.
        say: hears of every stage.

    Returns:
        The stages that were run, in order.

    Raises:
        InputError: not a bundle, `out` is no name of a zip, or it or the folder beside it is there already. No stage
            was begun then.
    """
    if out.suffix != ".zip":  # the folder would have the zip's name
        expected, todo = "a file name that ends in .zip", "name it as in --report bring-up.zip"
        raise InputError("the report", expected=expected, found=repr(out.name), todo=todo)
    bundle, folder = Bundle.open(path, external=external), out.with_suffix("")
    if folder.exists() or out.exists():
        there = out if out.exists() else folder
        raise InputError(
            str(there), expected="a new place for the report", found="something there", todo="name another"
        )
    folder.mkdir(parents=True)
    found, end = find_card(), time.monotonic() + 60 * minutes
    notes = list(_notes(bundle, found))
    for note in notes:
        say(note)
    steps = list[Step]()
    for name, engine in _plan(bundle, found):
        if time.monotonic() > end:
            notes.append(f"{name} {engine}: not begun, {minutes:g} minutes were over")
            continue
        steps.append(_run(name, Place(path, folder, engine, plugins, trust_engine, external), len(steps)))
        say(steps[-1].text())
    (folder / "summary.txt").write_text(_summary(notes, steps), "utf-8")
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.suffix != ".cache":  # compiled kernels serve nobody else
                archive.write(file, file.relative_to(folder.parent).as_posix())
    say(f"{out}: the report; {folder / 'summary.txt'} is a page of it")
    return steps


def _notes(bundle: Bundle, found: Card | None) -> Iterator[str]:
    """What can be tried here and what cannot, said at once."""
    if found is None:
        yield "no NVIDIA card here, or no driver: only the machine is looked at; run this where the card is"
        return
    yield f"{found.name}, compute capability {found.compute_capability}"
    if found.compute_capability not in _RTX:
        yield (
            f"TensorRT for RTX runs no engine on compute capability {found.compute_capability} (it takes "
            f"{', '.join(_RTX)}): only the machine and the calls to the driver are tried"
        )
    elif not _engines(bundle, found):
        yield f"the bundle has no engine for {found.compute_capability}: export it with a --target of that class"


def _engines(bundle: Bundle, found: Card) -> list[str]:
    """Engines for that card, those of the smallest budget first: what fails there is the quickest to see."""
    budgets = reversed(bundle.budgets)
    return [e.file for b in budgets for e in b.engines if found.compute_capability in e.compute_capabilities]


def _plan(bundle: Bundle, found: Card | None) -> Iterator[tuple[str, str]]:
    yield "machine", ""
    if found is None:
        return
    yield "device", ""
    if found.compute_capability in _RTX:
        for engine in _engines(bundle, found):
            for name in list(STAGES)[2:]:
                yield name, engine


def _run(name: str, place: Place, number: int) -> Step:
    label = f"{number:02}-{name}"
    result, log = place.folder / f"{label}.json", place.folder / f"{label}.log"
    arguments = [name, str(place.bundle), str(place.folder), str(result), place.engine, str(place.plugins or "")]
    arguments += [TRUSTED if place.trust_engine else "", str(place.external or "")]
    started = time.monotonic()
    with log.open("wb") as words:
        # -P: the folder that this is called from may be the download, and its numpy.py is not to run
        command = [sys.executable, "-P", "-m", "elastic_runtime.bringup.child", *arguments]
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, timeout=STAGES[name][1], check=False
            ).returncode
            ended = f"it ended with {code}" if code >= 0 else f"signal {-code} ended it"
        except subprocess.TimeoutExpired:
            ended = f"it took more than {STAGES[name][1]} s and was ended"
    seconds = time.monotonic() - started
    if result.is_file():
        found = json.loads(result.read_text("utf-8"))
    else:
        found = {"ended": ended, "last_words": log.read_text("utf-8", errors="replace")[-_TAIL:]}
        result.write_text(json.dumps(found, indent=1), "utf-8")
    return Step(name, place.engine, seconds, found)


def _summary(notes: list[str], steps: list[Step]) -> str:
    lines = [*notes, ""]
    for step in steps:
        lines.append(step.text())
        lines += [f"    {line}" for line in _details(step)]
    return "\n".join(lines) + "\n"


def _details(step: Step) -> Iterator[str]:
    """The numbers of a stage that a page has room for."""
    found = step.result.get("found", {})
    if step.name == "machine":
        packages = " ".join(f"{name} {version}" for name, version in found.get("packages", {}).items())
        yield f"{found.get('system')}, Python {found.get('python')}, driver of CUDA {found.get('driver_cuda')}"
        yield packages
        if "no_card" in found:
            yield found["no_card"]
    elif step.name == "golden" and "logits_off" in found:
        worst = max(found["states_off"].items(), key=lambda pair: pair[1], default=("none", 0.0))
        logits = max((max(row) for row in found["logits_off"] if row), default=0.0)
        yield f"logits off by {logits:.3g} at most, states by {worst[1]:.3g} ({worst[0]})"
    elif step.name != "engine":
        for name, value in found.items():
            yield f"{name} {json.dumps(value)[:160]}"
