"""A shard outside of its bundle that cannot be read: both languages name it, in the same words, and end."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elastic_runtime.format.seal import EMPTY, seal

#: Python's answer, as the program of C++ would print it.
PYTHON = """
import sys
from pathlib import Path
from elastic_runtime import Bundle, iter_weights
from elastic_runtime.errors import ElasticError

path, hub, check = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
try:
    bundle = Bundle.open(path, check, external=hub)
    budget = bundle.budget("small")
    for _ in iter_weights(bundle.recipe(budget), (path / budget.weights).parent, external=hub):
        pass
except ElasticError as error:
    print(f"elastic_generate: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""
_DROP_FROM_BOUNDS, _RIGHTS_TO_ANY_FILE = 24, (1, 2)  # PR_CAPBSET_DROP; CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


def _without_rights() -> None:
    """In a new process: what root may do with files that are nobody's."""
    library = ctypes.CDLL(None)
    for right in _RIGHTS_TO_ANY_FILE:
        library.prctl(_DROP_FROM_BOUNDS, right, 0, 0, 0)


def _answer(*command: object) -> tuple[int, str]:
    words = [str(part) for part in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, preexec_fn=_without_rights)
    return done.returncode, done.stderr


class Outside:
    """A copy of the demo whose shards lie in a folder of their own; `shard` is one of them."""

    def __init__(self, demo: Path, folder: Path) -> None:
        self.bundle, self.hub = folder / "bundle", folder / "hub"
        shutil.copytree(demo, self.bundle)
        (self.bundle / "weights").rename(self.hub)
        manifest: dict[str, Any] = json.loads((self.bundle / "manifest.json").read_text("utf-8")) | {"seal": EMPTY}
        outside = [entry for entry in manifest["files"] if entry["path"].startswith("weights/")]
        manifest["files"] = [entry for entry in manifest["files"] if entry not in outside]
        manifest["external_weights"] = [entry | {"path": Path(entry["path"]).name} for entry in outside]
        (self.bundle / "manifest.json").write_text(seal(json.dumps(manifest)), "utf-8")
        self.shard = self.hub / manifest["external_weights"][-1]["path"]


def _folder(outside: Outside) -> None:
    outside.shard.unlink()
    outside.shard.mkdir()


def _link(outside: Outside) -> None:
    outside.shard.unlink()
    outside.shard.symlink_to(outside.shard)


def _own(outside: Outside) -> Path:
    return outside.bundle / "small" / "weights.json"


#: What is done to the files, and how the answers to it begin and end.
CASES: dict[str, tuple[Callable[[Outside], object], str]] = {
    "gone": (lambda outside: outside.shard.unlink(), "a file of the bundle, found none. Name the folder of the shards"),
    "a folder in its place": (_folder, "a file of the bundle, found none. Name the folder of the shards"),
    "a link to itself": (_link, "a file of the bundle, found none. Name the folder of the shards"),
    "not to be read": (lambda outside: outside.shard.chmod(0), "found Permission denied. "),
    "in a folder not to be entered": (
        lambda outside: outside.hub.chmod(0),
        "a readable file, found Permission denied. Make it readable, or name another folder of the shards.",
    ),
    "a file of the bundle not to be read": (
        lambda outside: _own(outside).chmod(0),
        "a readable file, found Permission denied. Make it readable, or copy the bundle again.",
    ),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("check", ["sizes", "digests"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_answered_alike(program: Path, demo_bundle: Path, tmp_path: Path, name: str, check: str) -> None:
    outside = Outside(demo_bundle, tmp_path)
    damage, told = CASES[name]
    damage(outside)
    if _answer("sha256sum", outside.shard, _own(outside))[0] == 0:
        pytest.skip("rights to any file cannot be given up here")
    code, said = _answer(sys.executable, "-c", PYTHON, outside.bundle, outside.hub, check)
    options = ("--budget", "small", "--weights-digest", "--device", "cpu", "--weights-folder", outside.hub)
    cpp = _answer(program, outside.bundle, *options, *(["--check"] if check == "digests" else []))
    outside.hub.chmod(0o755)
    assert (code, told in said, said.count("\n")) == (1 if "found none" in told else 2, True, 1), said
    assert cpp == (code, said)


def test_without_damage_it_is_read(program: Path, demo_bundle: Path, tmp_path: Path) -> None:
    """So that the answers above are about the damage."""
    outside = Outside(demo_bundle, tmp_path)
    assert _answer(sys.executable, "-c", PYTHON, outside.bundle, outside.hub, "digests") == (0, "")
    options = ("--budget", "small", "--weights-digest", "--device", "cpu", "--weights-folder", outside.hub, "--check")
    assert _answer(program, outside.bundle, *options) == (0, "")
