"""Kill exports at random moments over an older bundle, and look at what stands there then.

    python tests/bench/kill_exports.py --kills 20 --seed 1
    python tests/bench/kill_exports.py --kills 20 --seed 1 --signal INT

The demo model (or `--checkpoint`) is exported, then exported again with other options to the same place, verification
and engines and all, and killed at moments drawn from the whole of such an export: of its seconds of processor time, as
on a busy machine the others say little. After each kill the bundle is read: every file against the digest in its
manifest, and the manifest against the older one's. Where the export had just published it is the new one, which is then
replaced by the older one again. At last the export runs to its end, and what it wrote is compared with what it writes
where there was nothing. Exit 1 if anything is not as it must be.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import ElasticError

OLDER = ("--max-context", "1024")
NEWER = ("--max-context", "2048", "--logits", "all")  # another graph: every stage runs again


@dataclass(frozen=True)
class Export:
    """One command line, without what varies."""

    common: tuple[str, ...]

    def start(self, output: Path, options: tuple[str, ...]) -> subprocess.Popen[bytes]:
        """Begin it."""
        command = [sys.executable, "-m", "elastic_export", *self.common, *options, "--output", str(output)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def run(self, output: Path, options: tuple[str, ...]) -> float:
        """Run it to its end; seconds of processor time."""
        begun = _used(resource.getrusage(resource.RUSAGE_CHILDREN))
        with self.start(output, options) as process:
            _, errors = process.communicate()
        if process.returncode != 0:
            raise SystemExit(f"the export ended with {process.returncode}: {errors.decode()[-2000:]}")
        return _used(resource.getrusage(resource.RUSAGE_CHILDREN)) - begun


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--signal", choices=["KILL", "INT", "TERM"], default="KILL")
    parser.add_argument("--checkpoint")
    parser.add_argument("--budget", default="all")
    parser.add_argument("--target", default="rtx5080,rtx4090")
    given = parser.parse_args()
    common = ("--budget", given.budget, "--target", given.target)
    export = Export((*common, "--checkpoint", given.checkpoint) if given.checkpoint else common)
    with tempfile.TemporaryDirectory(prefix="kill-exports-") as folder:
        sys.exit(
            _try(export, Path(folder), given.kills, random.Random(given.seed), signal.Signals[f"SIG{given.signal}"])
        )


def _try(export: Export, folder: Path, kills: int, draw: random.Random, sign: signal.Signals) -> int:
    older, newer, out = folder / "older", folder / "newer", folder / "out"
    export.run(older, OLDER)
    length = export.run(newer, NEWER)
    shutil.copytree(older, out)
    manifests = {(place / "manifest.json").read_bytes(): place.name for place in (older, newer)}
    print(f"an export takes {length:.1f} s of processor time; {kills} of them get {sign.name} at a random moment of it")
    faults, found = 0, {"older": 0, "newer": 0}
    for number in range(1, kills + 1):
        moment = draw.uniform(0.0, length)
        status = _killed(export, out, moment, sign)
        what = _look(out, manifests)
        left = [path.name for path in folder.iterdir() if path.name.startswith(".out.")]
        good = what in found and (sign == signal.SIGKILL or not left)
        faults += not good
        found[what] = found.get(what, 0) + 1
        print(
            f"{number:3}  {moment:6.2f} s  exit {status:4}  {what}  {len(left)} left over{'' if good else '  WRONG'}",
            flush=True,
        )
        if what != "older":
            shutil.rmtree(out)
            shutil.copytree(older, out)
    seconds = export.run(out, NEWER)
    same = _contents(out) == _contents(newer)
    left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    print(f"{found}; the next export took {seconds:.1f} s of it and wrote {'the same' if same else 'SOMETHING ELSE'}")
    print(f"left over afterwards: {left or 'nothing'}")
    return int(bool(faults or left or not same))


def _killed(export: Export, out: Path, moment: float, sign: signal.Signals) -> int:
    with export.start(out, NEWER) as process:
        while process.poll() is None and _processor_time(process.pid) < moment:
            time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, sign)  # the export alone: what it has started must end with it
        process.communicate()
    return process.returncode


def _used(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def _processor_time(pid: int) -> float:
    """Seconds of a process and of all that it started."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        tasks = [task.joinpath("children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:  # it has just ended
        return 0.0
    own = sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")  # its own, and of those it waited for
    return own + sum(_processor_time(int(child)) for text in tasks for child in text.split())


def _look(out: Path, manifests: dict[bytes, str]) -> str:
    """Which bundle stands there, every digest of it read."""
    try:
        Bundle.open(out, "digests")
        return manifests.get((out / "manifest.json").read_bytes(), "another one")
    except (ElasticError, OSError) as error:
        return f"{error}"


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


if __name__ == "__main__":
    main()
