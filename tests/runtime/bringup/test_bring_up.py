"""A bring-up: on a machine without a card, on one whose card TensorRT-RTX does not run on, and whole, on stand-ins for
driver and bindings whose engine is the bundle's own model (tests/stand_in).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_runtime.bringup import bring_up as module
from elastic_runtime.bringup.bring_up import bring_up
from elastic_runtime.bringup.stages import STAGES, Place
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import InputError
from rtx_stand_in import FOLDER

GIB = 1 << 30
CARD = Card("GeForce RTX 5080", "12.0", 16 * GIB, 15 * GIB)


def test_without_a_card_it_says_what_it_can_and_cannot_do(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_card", lambda: None)
    said: list[str] = []
    out = tmp_path / "report.zip"
    steps = bring_up(demo_bundle, out, say=said.append)
    assert [step.name for step in steps] == ["machine"]
    assert said[0].startswith("no NVIDIA card here, or no driver: only the machine is looked at")
    assert said[-1] == f"{out}: the report; {tmp_path / 'report' / 'summary.txt'} is a page of it"
    with zipfile.ZipFile(out) as archive:
        assert {"report/00-machine.json", "report/summary.txt"} <= set(archive.namelist())
        machine = json.loads(archive.read("report/00-machine.json"))["found"]
    assert {budget["name"] for budget in machine["manifest"]["budgets"]} == {"small", "medium", "large"}
    with pytest.raises(InputError, match=r"report\.zip: expected a new place for the report"):
        bring_up(demo_bundle, out, say=said.append)


@pytest.mark.parametrize("name", ["report", "", "report.tar"])
def test_a_report_that_is_no_zip_is_refused_before_the_first_stage(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "_run", lambda *_: pytest.fail("a stage began"))
    with pytest.raises(InputError, match=r"expected a file name that ends in \.zip"):
        bring_up(demo_bundle, Path(name), say=lambda text: None)
    assert list(tmp_path.iterdir()) == []


def test_every_stage_is_told_where_the_weights_are(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a bundle that holds its weights a folder of them is refused, here and in a stage's process."""
    text = "holds its weights, found one"
    with pytest.raises(InputError, match=text):
        bring_up(demo_bundle, tmp_path / "r.zip", external=tmp_path, say=lambda text: None)
    assert list(tmp_path.iterdir()) == []
    place = Place(demo_bundle, tmp_path, external=tmp_path)
    with pytest.raises(InputError, match=text):
        place.opened()
    step = module._run("machine", place, 0)
    assert text in step.result["error"]


def _planned(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, card: Card, **given: Any) -> list[Any]:
    """The stages that are run, without running them."""
    monkeypatch.setattr(module, "find_card", lambda: card)
    monkeypatch.setattr(module, "_run", lambda name, place, number: module.Step(name, place.engine, 0.5, {"found": {}}))
    said: list[str] = []
    steps = bring_up(bundle, tmp_path / "r.zip", say=said.append, **given)
    return [[(step.name, step.engine) for step in steps], said]


def test_a_card_that_tensorrt_does_not_run_on_is_named_at_once(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, said = _planned(demo_bundle, monkeypatch, tmp_path, Card("NVIDIA H100", "9.0", 80 * GIB, 79 * GIB))
    assert steps == [("machine", ""), ("device", "")]
    assert said[1].startswith("TensorRT for RTX runs no engine on compute capability 9.0 (it takes 7.5, 8.0,")


def test_the_smallest_budget_is_tried_first_and_a_card_without_engines_is_told(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, _ = _planned(demo_bundle, monkeypatch, tmp_path, CARD)
    assert [name for name, _ in steps[2 : len(STAGES)]] == list(STAGES)[2:]
    assert steps[2][1] == "small/rtx5080.engine"
    assert len(steps) == 2 + 3 * (len(STAGES) - 2)
    (tmp_path / "other").mkdir()
    _, said = _planned(demo_bundle, monkeypatch, tmp_path / "other", Card("A100", "8.0", 40 * GIB, 39 * GIB))
    assert said[1] == "the bundle has no engine for 8.0: export it with a --target of that class"


def test_time_that_is_over_begins_nothing_more(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, _ = _planned(demo_bundle, monkeypatch, tmp_path, CARD, minutes=-1)
    assert steps == []
    assert "machine : not begun, -1 minutes were over" in (tmp_path / "r" / "summary.txt").read_text("utf-8")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal 11 ended it"),
        ("import time; time.sleep(60)", "it took more than 1 s and was ended"),
    ],
)
def test_a_stage_that_crashes_or_hangs_ends_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, told: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\nprint('last words', flush=True)\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(program))
    monkeypatch.setitem(STAGES, "machine", (STAGES["machine"][0], 1 if "sleep" in body else 60))
    step = module._run("machine", Place(tmp_path, tmp_path), 0)
    assert step.result["ended"] == told
    assert "last words" in step.result["last_words"]
    assert json.loads((tmp_path / "00-machine.json").read_text("utf-8")) == step.result


def test_nothing_of_the_folder_that_it_is_called_from_runs(
    demo_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called as `cd BUNDLE; elastic-run . --bring-up`, with modules of the download's own beside the manifest."""
    bundle = tmp_path / "bundle"
    shutil.copytree(demo_bundle, bundle)
    for name in ("numpy.py", "json.py"):
        (bundle / name).write_text("open('ran', 'w').close()\n")
    monkeypatch.chdir(bundle)
    step = module._run("machine", Place(Path(), tmp_path), 0)
    assert not (bundle / "ran").exists()
    assert "found" in step.result, step.result


class _Small:
    """A backend of a tiny context: a position beyond it is a write beyond the caches."""

    vocab_size = 11
    max_batch = 1
    graphs = "none"

    def __init__(self, max_context: int, max_tokens: int) -> None:
        self.max_context, self.max_tokens = max_context, max_tokens
        self.calls = 0

    def start(self, batch: int) -> None:
        assert batch == 1

    def call(self, ids: Any, position: Any, length: Any) -> Any:
        assert 1 <= length[0] <= self.max_tokens
        assert 0 <= position[0] <= self.max_context - length[0]
        self.calls += 1
        return np.zeros((1, self.vocab_size), np.float32)

    def call_size(self, wanted: int, most: int) -> int:
        return min(wanted, most, self.max_tokens)

    def memory(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("max_context", "max_tokens"), [(1, 1), (20, 512), (64, 16), (65, 65), (100, 64), (4096, 512)])
@pytest.mark.parametrize("stage", ["context", "speed"])
def test_no_stage_leaves_a_small_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, max_context: int, max_tokens: int
) -> None:
    backend = _Small(max_context, max_tokens)
    monkeypatch.setattr(Place, "backend", lambda *_, **__: backend)
    found = STAGES[stage][0](Place(tmp_path, tmp_path))
    assert backend.calls
    if stage == "speed":
        assert all(0 <= int(start) < max_context for start in found["decode_seconds"])
        assert (max_context > 64) == (list(found["decode_seconds"]) != ["0"])


@pytest.mark.timeout(900)
def test_a_whole_report_on_the_stand_in(demo_bundle: Path, tmp_path: Path) -> None:
    """Every stage of an engine, each in its process: uploads, bindings, states that swap, all the way to the logits of
    the reference, for the stand-in's engine reads and writes at the addresses that it was given.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in of the driver")
    driver = tmp_path / "lib" / "libcuda.so.1"
    driver.parent.mkdir()
    source = Path(__file__).parents[1] / "driver" / "fake_cuda.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-std=c11", "-O1", "-o", driver, source], check=True)
    shutil.copy(driver, driver.with_name("libnvidia-ml.so.1"))
    path = os.pathsep.join([str(FOLDER), *(p for p in sys.path if p)])
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(driver.parent),
        "STAND_IN_BUNDLE": str(demo_bundle),
        "PYTHONPATH": path,
    }
    found = {}
    for name in list(STAGES)[1:]:
        result = tmp_path / f"{name}.json"
        arguments = [name, demo_bundle, tmp_path, result, "small/rtx5080.engine", "", "", ""]
        command = [sys.executable, "-m", "elastic_runtime.bringup.child", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(result.read_text("utf-8"))
        assert "found" in found[name], (name, found[name], done.stderr)
    device, golden = found["device"]["found"], found["golden"]["found"]
    assert device["copies_equal"]
    assert device["rows_equal"]
    assert device["graph_ran"]
    assert max(max(row) for row in golden["logits_off"]) < 0.02
    assert max(golden["states_off"].values()) < 0.03
    kept = np.load(tmp_path / "golden-small-rtx5080-engine.npz")
    assert {f"logits.0.{call}" for call in range(golden["calls"])} < set(kept)
    assert any("compiling the kernels" in line for line in found["context"]["found"]["said"])
    assert not any("compiling" in line for line in found["context-again"]["found"]["said"])
    assert found["life"]["found"]["lost"] == 0
    tensors = {tensor["name"]: tensor for tensor in found["engine"]["found"]["facts"]["tensors"]}
    assert tensors["key_cache_out.0"]["aliased"] == "key_cache.0"
