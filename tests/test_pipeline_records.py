"""What an export tells beside the bundle and in its reports, with stand-ins for engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elastic_export import pipeline
from elastic_export.bundle.job import ExportOptions, plan_job
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import write_checkpoint
from elastic_export.engine.facts import EngineFacts
from elastic_export.engine.request import EngineRequest
from elastic_export.pipeline import ExportResult, export
from elastic_export.progress import Progress
from small_export import ARCH, SIZES, SMALL, small_weights

# One worker: its exports share a trace.
pytestmark = [pytest.mark.usefixtures("exports_trace_once"), pytest.mark.xdist_group("pipeline_records")]


def fake_engine(request: EngineRequest) -> EngineFacts:
    request.output.write_text("engine")
    return EngineFacts(
        6,
        "",
        1.5,
        123,
        (1000, 2000),
        {},
        (),
        1,
        (),
        tuple(request.compute_capabilities),
        "tensorrt-rtx",
        "1.7.1",
        True,
        (),
    )


@pytest.fixture(autouse=True)
def _no_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "build_engine", fake_engine)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small parent; of its logits' weights three that the small budget keeps are too small for float16."""
    weights = small_weights()
    weights["lm_head.weight"][:3, 1] = 1e-20
    weights["lm_head.weight"][3:9, 47] = 1e-20  # a hidden channel that the small budget does not keep
    return write_checkpoint(tmp_path_factory.mktemp("parent") / "tiny", ARCH, weights, [SMALL])


class Said(Progress):
    """Keeps what a user is told."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def run(source: Path, output: Path, progress: Progress | None = None, **options: Any) -> ExportResult:
    asked = ExportOptions("small", "rtx5080", output, **({"verify": False, "ops": "native"} | SIZES | options))
    return export(plan_job(Checkpoint.open(source), asked, demo=False), progress or Said())


@pytest.mark.parametrize("weights", ["sliced", "embedded"])
def test_weights_that_become_zero_are_said_and_reported(tmp_path: Path, checkpoint: Path, weights: str) -> None:
    progress = Said()
    run(checkpoint, tmp_path / "out", progress, weights=weights, precision="fp16")
    found = json.loads((tmp_path / "out/small/report.json").read_text())["conversion"]
    lost_digits = found["worst"].pop("lost_digits")
    assert found["worst"] == {"tensor": "lm_head.weight", "values": 97 * 40, "became_zero": 3}
    assert (found["from"], found["to"], found["became_zero"]) == ("bf16", "fp16", 3)
    assert found["lost_digits"] >= lost_digits
    values = SMALL.architecture(ARCH).parameters()
    (warning,) = [text for text in progress.said if "zero" in text]
    assert warning.startswith(
        f"small: 3 of {values} weights are too small for fp16 and became zero, in lm_head.weight 3 of {97 * 40}; "
    )


def test_weights_in_their_own_precision_lose_nothing(tmp_path: Path, checkpoint: Path) -> None:
    progress = Said()
    run(checkpoint, tmp_path / "out", progress, weights="sliced")
    assert json.loads((tmp_path / "out/small/report.json").read_text())["conversion"] is None
    assert progress.said == []
