"""What an export tells beside the bundle and in its reports, with stand-ins for engines."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from elastic_export import compile as compiling
from elastic_export.bundle import built, writer
from elastic_export.bundle.writer import BundleWriter
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.compile import ExportResult, export
from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.engine.request import EngineRequest
from elastic_export.plan.job import ExportOptions, plan_job
from elastic_export.progress import Progress
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from elastic_runtime.format.jsonfile import read_json
from small_export import ARCH, SIZES, SMALL, contents, small_weights
from synthetic import write_checkpoint
from text_engine import text_engine

# One worker: its exports share a trace.
pytestmark = [pytest.mark.usefixtures("exports_trace_once"), pytest.mark.xdist_group("compile_records")]


def fake_engine(request: EngineRequest, **more: object) -> EngineFacts:
    return text_engine(request)


@pytest.fixture(autouse=True)
def _no_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built, "build_engine", fake_engine)


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


def run(
    source: Path,
    output: Path,
    progress: Progress | None = None,
    targets: str = "rtx5080",
    command: Sequence[str] = (),
    **options: Any,
) -> ExportResult:
    asked = ExportOptions("small", targets, output, **({"verify": False, "ops": "native"} | SIZES | options))
    return export(plan_job(Checkpoint.open(source), asked, demo=False), progress or Said(), command=command)


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


def record(output: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(output.with_name(f"{output.name}.run.json").read_text())
    return result


def test_the_run_record_says_when_where_and_how_long(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("deep") / "out"
    result = run(checkpoint, out, command=["elastic-export", "--budget", "small"])
    found = record(tmp_path / out)
    assert found == result.run
    assert found["schema"] == "elastic-run-record/1"
    begun = datetime.fromisoformat(found["begun"])
    assert begun.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - begun) < timedelta(hours=1)
    assert found["command"] == ["elastic-export", "--budget", "small"]
    assert found["paths"] == {
        "bundle": str(tmp_path / out), "checkpoint": str(checkpoint.resolve()), "working_folder": str(tmp_path),
    }  # fmt: skip
    manifest = (tmp_path / out / "manifest.json").read_bytes()
    assert found["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert set(found["seconds"]) == {"trace", "weights", "bundle", "whole"}
    (budget,) = found["budgets"]
    assert (budget["name"], set(budget["seconds"])) == ("small", {"passes", "onnx", "engine"})
    assert budget["engines"] == [{"file": "small/rtx5080.engine", "seconds": 1.5, "peak_rss": 123}]
    assert found["peak_rss"] > 50 << 20, "with torch loaded"
    assert found["machine"]["cpus"] == os.cpu_count()
    assert {"platform", "machine", "system", "python"} < set(found["machine"])
    assert found["versions"] == dict(result.manifest.versions)
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["out", "out.run.json"]


def test_names_that_are_no_text_are_told_as_text(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the record is JSON that no strict reader takes, and the next export would find a stranger's file."""
    strange = tmp_path / os.fsdecode(b"w\xff")
    strange.mkdir()
    source = shutil.copytree(checkpoint, strange / "tiny")
    monkeypatch.chdir(strange)
    run(Path("tiny"), tmp_path / "out", command=["elastic-export", os.fsdecode(b"--checkpoint=\xff")])
    found = read_json(tmp_path / "out.run.json")
    assert found["command"] == ["elastic-export", "--checkpoint=\\xff"]
    here = f"{tmp_path}/w\\xff"
    assert found["paths"] == {"bundle": f"{tmp_path}/out", "checkpoint": f"{here}/tiny", "working_folder": here}
    run(source, tmp_path / "out")


def test_no_file_of_the_bundle_tells_of_the_run(tmp_path: Path, checkpoint: Path) -> None:
    run(checkpoint, tmp_path / "out", verify=True)
    report = json.loads((tmp_path / "out/small/report.json").read_text())
    assert not {"seconds", "where", "machine"} & set(report)
    words = [str(tmp_path), str(checkpoint), platform.platform()]
    for name, data in contents(tmp_path / "out").items():
        assert [word for word in words if word.encode() in data] == [], name


def test_the_record_is_replaced_by_the_next_export_and_outlives_one_that_fails(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    run(checkpoint, out)
    first = record(out)
    run(checkpoint, out, targets="rtx4090", add=True)
    second = record(out)
    assert second["begun"] > first["begun"]
    assert [engine["file"] for engine in second["budgets"][0]["engines"]] == ["small/rtx4090.engine"]
    monkeypatch.setattr(built, "build_engine", lambda request, **more: pytest.fail("stop"))
    with pytest.raises(pytest.fail.Exception):
        run(checkpoint, out, targets="rtx3090")
    assert record(out) == second
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "out.run.json"]


@pytest.mark.parametrize("name", ["out.run.json", "out.failed.json"])
@pytest.mark.parametrize(
    "text", ["years of work", '{"schema": "thesis/1"}', '{"schema": "elastic-bundle/1"}', "[]", None]
)
def test_a_file_of_somebody_else_is_not_replaced(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str | None
) -> None:
    path = tmp_path / name
    path.mkdir() if text is None else path.write_text(text)
    monkeypatch.setattr(compiling, "trace_parent", lambda *args, **more: pytest.fail("began to build"))
    with pytest.raises(InputError, match=rf"{name}: expected none, or one that an export wrote, found .*\. Move it"):
        run(checkpoint, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert text is None or path.read_text() == text


@pytest.mark.parametrize("before", [False, True], ids=["first export", "next export"])
def test_a_record_that_cannot_be_written_takes_no_bundle_away_and_leaves_none_of_an_older_one(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    replace = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.name == "out.run.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    if before:
        run(checkpoint, tmp_path / "out")
        assert record(tmp_path / "out")
    monkeypatch.setattr(Path, "replace", full)
    progress = Said()
    run(checkpoint, tmp_path / "out", progress)
    assert progress.said == [f"{tmp_path}/out.run.json: not written: No space left on device; the bundle is complete"]
    assert Bundle.open(tmp_path / "out", "digests")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("moment", ["record", "publish"])
def test_a_run_that_ends_once_its_bundle_is_published_leaves_no_record_of_an_older_one(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    out, publish = tmp_path / "out", writer.publish
    run(checkpoint, out)
    old = (out / "manifest.json").read_bytes()

    def end(*args: Any) -> None:
        raise KeyboardInterrupt

    def publish_and_end(*args: Any) -> None:
        publish(*args)
        end()

    if moment == "record":
        monkeypatch.setattr(BundleWriter, "record", end)
    else:
        monkeypatch.setattr(writer, "publish", publish_and_end)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, out, targets="rtx4090")
    assert (out / "manifest.json").read_bytes() != old
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_the_order_of_a_request_changes_no_byte(tmp_path: Path, checkpoint: Path) -> None:
    orders = [("rtx5080,rtx4090,rtx5090", (64, 32)), ("rtx4090,rtx5090,rtx5080", (32, 64))]
    one, other = (
        contents(run(checkpoint, tmp_path / targets, targets=targets, max_contexts=contexts).output)
        for targets, contexts in orders
    )
    assert set(one) == set(other)
    assert [name for name in one if one[name] != other[name]] == []
