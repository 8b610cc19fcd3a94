"""What has not changed stays in a new bundle, and what has is made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from elastic_export.bundle import made_from, report_file, standing
from repeated_export import BUDGETS, Seen, changed, inodes, run, write_budgets
from small_export import contents

# One worker: its exports share a trace.
pytestmark = [pytest.mark.usefixtures("exports_trace_once"), pytest.mark.xdist_group("compile_incremental")]


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


def test_a_report_of_a_version_that_said_less_is_another_exporter_s(
    tmp_path: Path, checkpoint: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = report_file.report_of

    def less(*given: Any, **more: Any) -> dict[str, Any]:
        report = real(*given, **more)
        del report["rounding"]
        return report

    with monkeypatch.context() as old:
        old.setattr(report_file, "report_of", less)
        run(checkpoint, tmp_path / "same", seen)
        old.setattr(made_from, "exporter_digest", lambda: "of the old one")
        run(checkpoint, tmp_path / "old", seen)
    for name, why in (("old", "another exporter"), ("same", "no report says what it was made from")):
        run(checkpoint, tmp_path / name, seen)
        assert seen.said == [f"{budget}: made again: {why}" for budget in BUDGETS]
        assert not run(checkpoint, tmp_path / name, seen).changed


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
