"""Exports over an older bundle, with stand-ins for engines: what is the same stays, what is not is made again."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elastic_export.bundle import built, digests, fingerprint, made_from, proof, standing
from elastic_export.bundle.unchanged import unchanged
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.cli.main import cli
from elastic_export.compile import ExportResult, export
from elastic_export.engine.engine_facts import EngineFacts
from elastic_export.engine.request import EngineRequest
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.plan.job import ExportJob, ExportOptions, plan_job
from elastic_export.progress import Progress
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import BuildError
from elastic_runtime.format import digest
from small_export import contents
from synthetic import write_checkpoint
from text_engine import text_engine

# One worker: its exports share a trace.
pytestmark = [pytest.mark.usefixtures("exports_trace_once"), pytest.mark.xdist_group("compile_incremental")]

ARCH = Architecture("M*-", 61, 32, (48,), (4,), 8, 2, 8, 4, 4, 2, 8, 1e-5, (0.0, math.inf))
BUDGETS = {"full": {}, "half": {"hidden_size": 24, "intermediate_size": 32}}
ALL = {"budgets": "all", "targets": "rtx5080"}


@dataclass
class Seen(Progress):
    """What was done and said during an export."""

    built: list[str] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    oversize: tuple[str, ...] = ()
    scratch: int = 2000

    def __post_init__(self) -> None:
        super().__init__()

    def say(self, text: str) -> None:
        self.said.append(text)

    def build(self, request: EngineRequest, **more: object) -> EngineFacts:
        self.built.append(f"{request.output.parent.name}/{request.output.name}")
        text = f"{request.max_tokens} tokens, {request.max_context} rows, {request.compute_capabilities}, "
        text += digest.file_digest(request.onnx)[1]
        return text_engine(request, text, activation_bytes=(1000, self.scratch), oversize=self.oversize)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What the last export did."""
    result, verify = Seen(), proof.verify_budgets

    def verify_budgets(oracle: Any, subjects: Any) -> Any:
        result.verified += [subject.budget.name for subject in subjects]
        return verify(oracle, subjects)

    monkeypatch.setattr(built, "build_engine", result.build)
    monkeypatch.setattr(proof, "verify_budgets", verify_budgets)
    return result


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that nobody has touched for a while, as remembered digests want it."""
    folder = tmp_path_factory.mktemp("parent") / "tiny"
    write_checkpoint(folder, ARCH, random_weights(ARCH, np.random.default_rng(3)), [Budget.full(ARCH, "full")])
    write_budgets(folder, BUDGETS)
    (folder / "LICENSE").write_text("None.\n")
    for file in folder.iterdir():
        os.utime(file, (1_600_000_000, 1_600_000_000))
    return folder


def write_budgets(folder: Path, budgets: dict[str, Any]) -> None:
    (folder / "elastic_config.json").write_text(json.dumps({"format": "elastic-budgets/1", "budgets": budgets}))


@pytest.fixture
def checkpoint(tmp_path: Path, parent: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(parent, tmp_path / "tiny"))


def plan(source: Path, output: Path, **options: Any) -> ExportJob:
    asked = {"max_tokens": 16, "max_contexts": (64,), "ops": "native", "verify": False, **ALL, **options}
    return plan_job(Checkpoint.open(source), ExportOptions(output=output, **asked), demo=False)


def run(source: Path, output: Path, seen: Seen, **options: Any) -> ExportResult:
    """An export as the command line makes it."""
    seen.built.clear(), seen.verified.clear(), seen.said.clear()
    job = plan(source, output, **options)
    with digests.remembering_digests(distrust=job.options.distrust) as ours:
        return unchanged(job, seen, ours) or export(job, seen, digests=ours)


def inodes(folder: Path) -> dict[str, tuple[int, int]]:
    """Which file each is, and when its bytes were written."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {p.relative_to(folder).as_posix(): (p.stat().st_ino, p.stat().st_mtime_ns) for p in files}


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


# ------------------------------------------------------------------------------------------------------- nothing to do


@pytest.mark.parametrize("weights", ["shared", "sliced"])
def test_files_that_are_shipped_in_a_folder_or_written_anew_are_no_change(
    tmp_path: Path, checkpoint: Path, seen: Seen, weights: str
) -> None:
    """Chat templates with names lie in a folder; which ids end a text may stand in config.json alone."""
    config, template = checkpoint / "config.json", checkpoint / "additional_chat_templates" / "tool.jinja"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": 2}))
    template.parent.mkdir()
    template.write_text("{{ messages }}")
    options = {"weights": weights}
    first = run(checkpoint, tmp_path / "out", seen, **options)
    inside = "" if weights == "shared" else "half/"
    assert {f"{inside}generation_config.json", f"{inside}additional_chat_templates/tool.jinja"} <= paths(first)
    again = run(checkpoint, tmp_path / "out", seen, **options)
    assert (again.changed, again.manifest) == (False, first.manifest)
    template.write_text("{{ messages[0] }}")
    assert run(checkpoint, tmp_path / "out", seen, **options).changed
    template.rename(checkpoint / "tool.jinja")
    moved = run(checkpoint, tmp_path / "out", seen, **options)
    assert f"{inside}tool.jinja" in paths(moved)
    assert f"{inside}additional_chat_templates/tool.jinja" not in paths(moved)


def paths(result: ExportResult) -> set[str]:
    return {entry.path for entry in result.manifest.files}


def test_a_second_run_does_nothing_and_says_so(tmp_path: Path, checkpoint: Path, seen: Seen) -> None:
    first = run(checkpoint, tmp_path / "out", seen, verify=True)
    assert (first.changed, seen.verified) == (True, ["full", "half"])
    before, record = inodes(tmp_path), (tmp_path / "out.run.json").read_text()
    again = run(checkpoint, tmp_path / "out", seen, verify=True)
    assert (again.changed, again.manifest, again.run) == (False, first.manifest, json.loads(record))
    assert inodes(tmp_path) == before
    assert (seen.built, seen.verified, seen.said) == ([], [], [])


@pytest.mark.parametrize("weights", ["sliced", "embedded", "shared"])
def test_no_byte_of_the_weights_is_read(
    tmp_path: Path, checkpoint: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    """Of files whose digests are remembered: the checkpoint's from the first run on, those of a sliced bundle from the
    second on (what has just been written may still change under the same time).
    """
    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LEAST_REMEMBERED", 1)
    options, read, compute = (
        {"weights": weights, "external_weights": weights == "shared"},
        set[Path](),
        digests.streamed_digest,
    )

    def note(path: Path, **more: Any) -> tuple[int, str]:
        read.add(path)
        return compute(path, **more)

    run(checkpoint, tmp_path / "out", seen, **options)
    for file in (tmp_path / "out").rglob("*"):
        os.utime(file, (1_600_000_000, 1_600_000_000))
    monkeypatch.setattr(digests, "streamed_digest", note)
    assert not run(checkpoint, tmp_path / "out", seen, **options).changed
    assert [path for path in read if path.parent == checkpoint] == []
    read.clear()
    assert not run(checkpoint, tmp_path / "out", seen, **options).changed
    assert read == set()


def test_shards_that_are_links_to_the_checkpoints_are_as_whole_as_those(
    tmp_path: Path, checkpoint: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LEAST_REMEMBERED", 1)
    run(checkpoint, tmp_path / "out", seen)
    read, compute = list[str](), digests.streamed_digest
    monkeypatch.setattr(
        digests, "streamed_digest", lambda path, **more: (read.append(path.name), compute(path, **more))[1]
    )
    assert not run(checkpoint, tmp_path / "out", seen).changed
    assert [name for name in read if name.endswith(".safetensors")] == []


def test_an_engine_that_does_not_fit_is_refused_though_it_stands(tmp_path: Path, checkpoint: Path, seen: Seen) -> None:
    seen.scratch = 1 << 40
    run(checkpoint, tmp_path / "out", seen, allow_unfit=True)
    before = inodes(tmp_path)
    with pytest.raises(BuildError, match="target rtx5080: expected at least one engine that fits it once it is built"):
        run(checkpoint, tmp_path / "out", seen)
    with pytest.raises(BuildError, match="--require-fit: expected every engine to fit its card"):
        run(checkpoint, tmp_path / "out", seen, allow_unfit=True, require_fit=True)
    assert inodes(tmp_path) == before


# ------------------------------------------------------------------------------------------------- what has not changed


def test_one_changed_width_rebuilds_that_budget_alone(tmp_path: Path, checkpoint: Path, seen: Seen) -> None:
    run(checkpoint, tmp_path / "out", seen, verify=True)
    before = inodes(tmp_path / "out")
    write_budgets(checkpoint, {**BUDGETS, "half": {"hidden_size": 24, "intermediate_size": 24}})
    result = run(checkpoint, tmp_path / "out", seen, verify=True)
    assert (seen.built, seen.verified) == (["half/rtx5080.engine"], ["half"])
    assert seen.said == ["half: made again: other widths or layers"]
    touched = changed(before, inodes(tmp_path / "out"))
    assert {name for name in touched if not name.startswith("half/")} == {"manifest.json"}
    assert {f"half/{name}" for name in ("model.onnx", "weights.json", "report.json", "rtx5080.engine")} <= touched
    assert result.manifest.budget("half").widths.ffn_sizes == (24,)  # type: ignore[union-attr]
    run(checkpoint, tmp_path / "new", seen, verify=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "new")


def test_a_new_target_adds_its_engines_alone(tmp_path: Path, checkpoint: Path, seen: Seen) -> None:
    run(checkpoint, tmp_path / "out", seen, verify=True)
    before = inodes(tmp_path / "out")
    run(checkpoint, tmp_path / "out", seen, verify=True, targets="rtx5080,rtx4090")
    assert (seen.built, seen.verified, seen.said) == (["full/rtx4090.engine", "half/rtx4090.engine"], [], [])
    touched = {"manifest.json", *(f"{b}/{n}" for b in BUDGETS for n in ("report.json", "rtx4090.engine"))}
    assert changed(before, inodes(tmp_path / "out")) == touched
    run(checkpoint, tmp_path / "new", seen, verify=True, targets="rtx5080,rtx4090")
    assert contents(tmp_path / "out") == contents(tmp_path / "new")


def test_a_target_of_the_same_capabilities_takes_the_engine_that_is_there(
    tmp_path: Path, checkpoint: Path, seen: Seen
) -> None:
    run(checkpoint, tmp_path / "out", seen)
    run(checkpoint, tmp_path / "out", seen, targets="rtx5090")
    assert seen.built == []
    run(checkpoint, tmp_path / "new", seen, targets="rtx5090")
    assert contents(tmp_path / "out") == contents(tmp_path / "new")


def test_to_verify_later_builds_no_engine_again(tmp_path: Path, checkpoint: Path, seen: Seen) -> None:
    run(checkpoint, tmp_path / "out", seen)
    run(checkpoint, tmp_path / "out", seen, verify=True)
    assert (seen.built, seen.verified) == ([], ["full", "half"])
    run(checkpoint, tmp_path / "new", seen, verify=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "new")


def test_evidence_within_other_limits_is_made_again(tmp_path: Path, checkpoint: Path, seen: Seen) -> None:
    run(checkpoint, tmp_path / "out", seen, verify=True)
    run(checkpoint, tmp_path / "out", seen, verify=True, max_contexts=(32,))
    assert seen.said == [f"{name}: made again: other limits of the calls that verify it" for name in BUDGETS]
    assert seen.verified == ["full", "half"]


def test_a_changed_licence_is_taken_and_nothing_else(tmp_path: Path, checkpoint: Path, seen: Seen) -> None:
    run(checkpoint, tmp_path / "out", seen)
    before = inodes(tmp_path / "out")
    (checkpoint / "LICENSE").unlink()
    (checkpoint / "LICENSE").write_text("Some.\n")
    assert run(checkpoint, tmp_path / "out", seen).changed
    assert changed(before, inodes(tmp_path / "out")) == {"LICENSE", "manifest.json"}


@pytest.mark.parametrize("what", ["exporter_digest", "versions"])
def test_another_exporter_makes_everything_again(
    tmp_path: Path, checkpoint: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    run(checkpoint, tmp_path / "out", seen, verify=True)
    monkeypatch.setattr(made_from, what, lambda *product: {"of": "another"})
    monkeypatch.setattr(standing.Standing, "sources", lambda self: pytest.fail("asked for digests it does not need"))
    run(checkpoint, tmp_path / "out", seen, verify=True)
    assert seen.verified == ["full", "half"]
    assert len(seen.built) == 2


def test_a_bundle_that_does_not_say_what_it_was_made_from_is_made_again(
    tmp_path: Path, checkpoint: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of older versions."""
    with monkeypatch.context() as old:
        old.setattr("elastic_export.bundle.report_file._origins", lambda *_: {})
        run(checkpoint, tmp_path / "out", seen)
    run(checkpoint, tmp_path / "out", seen)
    assert seen.said == [f"{name}: made again: no report says what it was made from" for name in BUDGETS]


@pytest.mark.parametrize("value", [None, [], "x", {"model": 3}, {"model": {"checkpoint": []}}, {"engines": {"a": 1}}])
def test_a_hostile_report_keeps_nothing(
    tmp_path: Path, checkpoint: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    dump = json.dumps
    with monkeypatch.context() as hostile:

        def altered(document: Any, **more: Any) -> str:
            ours = isinstance(document, dict) and "made_from" in document
            return dump({**document, "made_from": value} if ours else document, **more)

        hostile.setattr(json, "dumps", altered)
        run(checkpoint, tmp_path / "out", seen, budgets="half")
    run(checkpoint, tmp_path / "out", seen, budgets="half")
    assert seen.built == ["half/rtx5080.engine"]


def test_dumps_are_made_of_every_budget(tmp_path: Path, checkpoint: Path, seen: Seen) -> None:
    run(checkpoint, tmp_path / "out", seen)
    run(checkpoint, tmp_path / "out", seen, debug=True)
    assert {path.name for path in (tmp_path / "out.debug").iterdir() if path.is_dir()} == set(BUDGETS)


def test_an_engine_above_the_bounds_is_not_kept_where_that_is_not_allowed(
    tmp_path: Path, checkpoint: Path, seen: Seen
) -> None:
    seen.oversize = ("too large",)
    run(checkpoint, tmp_path / "out", seen, allow_oversize=True)
    assert not run(checkpoint, tmp_path / "out", seen, allow_oversize=True).changed
    run(checkpoint, tmp_path / "out", seen)
    assert len(seen.built) == 2


# ----------------------------------------------------------------------------------------------------- what is damaged


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize(
    ("name", "built_again"),
    [
        ("half/rtx5080.engine", ["half/rtx5080.engine"]),
        ("half/model.onnx", []),
        ("half/weights.json", []),
        ("half/golden.safetensors", []),
        ("half/report.json", ["half/rtx5080.engine"]),
        ("LICENSE", []),
    ],
)
def test_what_is_damaged_is_named_and_made_again(
    tmp_path: Path, checkpoint: Path, seen: Seen, how: str, name: str, built_again: list[str]
) -> None:
    out = tmp_path / "out"
    run(checkpoint, out, seen, verify=True)
    before = contents(out)
    target = out / name
    data = target.read_bytes()  # a bundle's LICENSE is a link to the checkpoint's
    target.unlink()
    target.write_bytes(data)
    DAMAGE[how](target)
    run(checkpoint, out, seen, verify=True)
    assert contents(out) == before
    assert seen.built == built_again
    assert Bundle.open(out, "digests")
    if name != "LICENSE":
        told = {"flipped": "damaged", "cut": "of another size than the manifest says", "gone": "missing"}[how]
        assert f"{target}: {told}, so not kept" in seen.said


@pytest.mark.parametrize("verify", [True, False])
def test_a_byte_changed_under_the_old_time_is_found_by_distrust(
    tmp_path: Path, checkpoint: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch, verify: bool
) -> None:
    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LEAST_REMEMBERED", 1)
    monkeypatch.setattr(fingerprint, "_SAMPLE", 8)  # else it would see all of tensors as small as these
    run(checkpoint, tmp_path / "out", seen, verify=verify)
    [shard] = checkpoint.glob("*.safetensors")
    with shard.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1000, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(shard, (1_600_000_000, 1_600_000_000))
    assert not run(checkpoint, tmp_path / "out", seen, verify=verify).changed, "nothing tells of it but the bytes"
    read, streamed = list[str](), digests.streamed_digest

    def noted(path: Path, **more: Any) -> tuple[int, str]:
        read.append(str(path))
        return streamed(path, **more)

    monkeypatch.setattr(digests, "streamed_digest", noted)
    result = run(checkpoint, tmp_path / "out", seen, verify=verify, distrust=True)
    assert result.changed
    assert read.count(str(shard)) == 1, "24 GB are read once, not by every part of an export that asks"
    assert (seen.built, seen.verified) == ([], ["full", "half"] if verify else []), "weights are inputs of the engines"
    assert "full: made again: other weights or another config" in seen.said
    assert Bundle.open(tmp_path / "out", "digests")


# --------------------------------------------------------------------------------------- however the bundle came about

REQUESTS: list[dict[str, Any]] = [
    {"budgets": budgets, "targets": targets, **more}
    for budgets in ("all", "full", "half")
    for targets in ("rtx5080", "rtx4090,rtx5090")
    for more in ({}, {"max_contexts": (32, 64)}, {"max_tokens": 8, "external_weights": True}, {"weights": "sliced"})
]


@pytest.fixture(scope="module")
def fresh(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, bytes]]:
    """What each request writes where there is nothing."""

    @cache
    def made(number: int) -> dict[str, bytes]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(built, "build_engine", Seen().build)
            folder = tmp_path_factory.mktemp("fresh") / "out"
            run(parent, folder, Seen(), **REQUESTS[number])
        return contents(folder)

    return made


@given(st.lists(st.integers(0, len(REQUESTS) - 1), min_size=2, max_size=4))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_exports_over_any_bundle_give_what_they_give_over_none(
    tmp_path_factory: pytest.TempPathFactory,
    parent: Path,
    fresh: Callable[[int], dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
    numbers: list[int],
) -> None:
    out = tmp_path_factory.mktemp("sequence") / "out"
    monkeypatch.setattr(built, "build_engine", Seen().build)
    for number in numbers:
        run(parent, out, Seen(), **REQUESTS[number])
        assert contents(out) == fresh(number)
        assert not run(parent, out, Seen(), **REQUESTS[number]).changed


# --------------------------------------------------------------------------------------------------------------- --add


def test_add_keeps_what_is_not_named_and_does_nothing_the_second_time(
    tmp_path: Path, checkpoint: Path, seen: Seen
) -> None:
    out = tmp_path / "out"
    run(checkpoint, out, seen, verify=True, budgets="full")
    run(checkpoint, out, seen, verify=True, budgets="half", targets="rtx4090", add=True)
    assert (seen.built, seen.verified) == (["half/rtx4090.engine"], ["half"])
    run(checkpoint, out, seen, verify=True, targets="rtx4090", add=True)
    assert (seen.built, seen.verified) == (["full/rtx4090.engine"], [])
    run(checkpoint, out, seen, verify=True, budgets="half", add=True)
    assert (seen.built, seen.verified) == (["half/rtx5080.engine"], [])
    before = inodes(tmp_path)
    for asked in (ALL, {"budgets": "full"}, {"targets": "rtx4090"}, {"verify": False}):
        assert not run(checkpoint, out, seen, add=True, **{"verify": True, **asked}).changed
    assert inodes(tmp_path) == before
    run(checkpoint, tmp_path / "new", seen, verify=True, targets="rtx4090,rtx5080")
    assert contents(out) == contents(tmp_path / "new"), "what was added says what it was made from"
    assert run(checkpoint, out, seen, verify=True).changed, "without --add a bundle is what is asked for"
    assert seen.built == []


# -------------------------------------------------------------------------------------------------------- command line


def test_the_command_says_so_without_torch(
    tmp_path: Path, checkpoint: Path, seen: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--checkpoint", str(checkpoint), "--budget", "all", "--target", "rtx5080", "--max-context", "64",
             "--max-tokens", "16", "--no-verify", "--output", str(tmp_path / "out")]  # fmt: skip
    cli.main(words, standalone_mode=False)
    assert "nothing to do" not in capsys.readouterr().out
    cli.main([*words, "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert (told["changed"], [b["kept"] for b in told["budgets"]]) == (False, [True, True])
    assert told["run"] == json.loads((tmp_path / "out.run.json").read_text())
    code = "import sys\nfrom elastic_export.cli.main import cli\n" + (
        f"cli.main({words!r}, standalone_mode=False)\nprint(sorted({{'torch', 'onnx'}} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *_, said, _, modules = done.stdout.splitlines()
    assert said.endswith("; nothing to do: this export would write the same")
    assert modules == "[]"
