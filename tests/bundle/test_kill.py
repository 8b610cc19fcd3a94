"""Exports killed at every kind of moment: what stands at the output is the old bundle or the new one, whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from elastic_export.bundle import exchange
from elastic_runtime.bundle import Bundle
from killed_at_line import count_lines, die_at_line, run_child

ASKED = {"big": [("rtx5080", 1024)], "small": [("rtx5080", 1024)]}
_FOLDERS = ("elastic_export/bundle", "elastic_runtime", "shutil.py", "pathlib")


@pytest.mark.parametrize("atomic", [True, False], ids=["exchange", "two renames"])
def test_killed_at_any_line(
    tmp_path: Path, export: Callable, tree: Callable, monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a killed process loses nothing that it had written
    if not atomic:
        monkeypatch.setattr(exchange, "_exchange", lambda first, second: False)
    out = tmp_path / "out"
    export(tmp_path / "model", ASKED, text="new")
    export(out, ASKED, text="old")
    new, old = tree(tmp_path / "model"), tree(out)
    total = count_lines(lambda: export(out, ASKED, text="new"), _FOLDERS)
    assert tree(out) == new
    seen = set()
    for line in range(1, 10 * total, max(1, total // 40)):  # a child that cleans up after the last one has more lines
        if not out.exists() or tree(out) != old:
            export(out, ASKED, text="old")
        status = run_child(lambda: export(out, ASKED, text="new"), die_at_line(line, _FOLDERS))
        assert status in (0, signal.SIGKILL), status
        if not atomic and not out.exists():
            assert [tree(p) for p in tmp_path.glob(".out.old-*")] == [old]
            seen.add("aside")
        else:
            assert tree(out) in (old, new)
            seen.add("new" if tree(out) == new else "old")
        if status == 0:
            break
    export(out, ASKED, text="old")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert status == 0
    assert {"old", "new"} <= seen


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_killed_around_the_two_renames_the_old_bundle_is_brought_back(
    tmp_path: Path, export: Callable, tree: Callable, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    out, rename = tmp_path / "out", Path.rename
    monkeypatch.setattr(exchange, "_exchange", lambda first, second: False)
    export(tmp_path / "model", ASKED, text="new")
    export(out, ASKED, text="old")
    new, old, left = tree(tmp_path / "model"), tree(out), {"before": 0, "between": 1, "after": 2}[moment]

    def rename_or_die(self: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return rename(self, target)

    def work() -> None:
        Path.rename = rename_or_die  # type: ignore[method-assign]  # in the child only
        export(out, ASKED, text="new")

    assert run_child(work, None) == signal.SIGKILL
    assert out.exists() == (moment != "between")
    with pytest.raises(KeyboardInterrupt):
        export(out, ASKED, before_finish=interrupt)
    assert tree(out) == (new if moment == "after" else old)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def interrupt(writer: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_process_of_its_own_stopped_while_it_builds(
    tmp_path: Path, export: Callable, tree: Callable, sign: signal.Signals
) -> None:
    out = tmp_path / "out"
    export(out, ASKED)
    before = tree(out)
    script = (
        "import sys, time, pathlib\n"
        "from elastic_export.bundle.writer import BundleWriter\n"
        "with BundleWriter(pathlib.Path(sys.argv[1])) as writer:\n"
        "    (writer.path / 'half').write_bytes(b'half')\n"
        "    print('building', flush=True)\n"
        "    time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(out)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"building\n"
        child.send_signal(sign)
    assert child.returncode != 0
    assert tree(out) == before
    hidden = [p.name.rpartition("-")[0] for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert hidden == ([] if sign == signal.SIGINT else [f".out.partial-{child.pid}"])
    # the lock died with the process: the next export cleans up
    export(out, ASKED)
    assert Bundle.open(out, "digests")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
