"""Whole reports, each stage in its process, on stand-ins for driver and bindings: uploads, bindings, states that swap
and recorded steps, all the way to the logits of the reference, for the stand-in's engine computes with what is at the
addresses that it was given.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from elastic_runtime.bringup.bring_up import bring_up
from elastic_runtime.bringup.modes import MODES
from elastic_runtime.bringup.plan import Step

Program = Callable[[str, str], Path]
ENGINE = "small/rtx5080.engine"
pytestmark = pytest.mark.timeout(900)


def _steps(found: list[Step]) -> dict[str, Step]:
    return {step.task.text(): step for step in found}


def test_a_whole_report(stand_in_card: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "r.zip", list[str]()
    steps = _steps(bring_up(stand_in_card, out, minutes=14, say=said.append))
    assert [step.text() for step in steps.values() if step.failed] == []
    assert said[2] == "Fake 5090, compute capability 12.0"

    device, context = steps["device"].found, steps[f"context {ENGINE} whole-graph-capture"].found
    assert device["copies_equal"]
    assert device["rows_equal"]
    assert device["graph_ran"]
    assert "CUDA_ERROR_OUT_OF_MEMORY" in device["refused"]
    assert any("compiling the kernels" in line for line in context["said"])
    assert not any("compiling" in x for x in steps[f"context-again {ENGINE} whole-graph-capture"].found["said"])
    tensors = {tensor["name"]: tensor for tensor in steps[f"engine {ENGINE}"].found["facts"]["tensors"]}
    assert tensors["key_cache_out.0"]["aliased"] == "key_cache.0"
    assert steps[f"life {ENGINE} whole-graph-capture"].found["lost"] == 0

    golden = {mode: steps[f"golden {ENGINE} {mode}"].found for mode in MODES}
    assert [found["graphs"] for found in golden.values()] == ["off", "off", "by this runtime", "by TensorRT"]
    for mode, found in golden.items():
        assert found["within_bounds"], (mode, found)
        assert found["same_ids"] == len(found["calls"])
        assert mode == "eager" or found["differ"] == []
    assert not [name for name in steps if name.startswith("sanitizer")]

    speed = steps[f"speed {ENGINE} whole-graph-capture"].found
    assert list(speed["decode_seconds"]) == ["0", "1792"]
    for times in speed["decode_seconds"].values():
        assert times["count"] == times["enqueue"]["count"] == 256
        assert 0 < times["enqueue"]["median"] < times["median"]
    assert list(speed["prefill_seconds"]) == ["16", "64"]
    assert speed["upload"]["bytes"] == speed["memory"]["by_the_runtime"]["weights"]
    assert speed["memory"]["reckoned"]["total"] > speed["upload"]["bytes"]
    assert set(speed["sample_seconds"]) == {"greedy", "top_p"}

    with zipfile.ZipFile(out) as archive:
        names = set(archive.namelist())
        assert {f"r/{number:02}-{step.task.stage}.json" for number, step in enumerate(steps.values())} <= names
        assert not [name for name in names if name.endswith(".cache")]
        page = archive.read("r/summary.txt").decode()
        archive.extract("r/golden-small-rtx5080-eager.npz", tmp_path / "there")
    assert "within the bounds: logits off by" in page
    with np.load(tmp_path / "there" / "r" / "golden-small-rtx5080-eager.npz") as kept:
        calls = golden["eager"]["calls"]
        assert {f"logits.{call['row']}.{call['call']}" for call in calls} < set(kept.files)


def test_on_a_data_centre_card_no_engine_is_tried_and_all_else_is(
    stand_in_card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Program
) -> None:
    monkeypatch.setenv("FAKE_CAPABILITY", "9.0")
    program("nvcc", "exit 1")
    folder = tmp_path / "plugins" / "device_check"
    folder.mkdir(parents=True)
    report = json.dumps({"machine": "Fake H100", "passed": True})
    body = f"import os, sys\nos.mkdir(sys.argv[2])\nopen(sys.argv[2] + '/report.json', 'w').write({report!r})\n"
    (folder / "__main__.py").write_text(body)
    said: list[str] = []
    steps = bring_up(stand_in_card, tmp_path / "r.zip", sources=folder.parent, say=said.append)
    assert [step.task.stage for step in steps] == ["machine", "card", "device", "engine", "ort", "kernels"]
    refusal = "TensorRT for RTX runs no engine on compute capability 9.0"
    assert said[3].startswith(refusal)
    engine = json.loads((tmp_path / "r" / "03-engine.json").read_text("utf-8"))
    assert engine["found"]["not_run"].startswith(refusal)
    assert steps[2].found["copies_equal"]
    assert "not_run" in steps[4].found
    assert steps[5].found["report"]["passed"]
    assert "Fake H100: all correct" in (tmp_path / "r" / "summary.txt").read_text("utf-8")
    assert not any(step.failed for step in steps)
