"""`plan`, `merge`, what a run takes and the machines that are refused; the reckoning is in bundle/test_forecast.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from elastic_export.cli import export as module
from elastic_export.plan.machine import Machine, Space, this_machine

SMALL = Space(300 << 20, "the memory limit of its control group (0.5 GiB)")
ASKED = ("--budget", "all", "--target", "rtx5080,rtx4090,rtx5090")


def of(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "this_machine", lambda output, shard: machine)


@pytest.fixture
def here(tmp_path: Path) -> Machine:
    return this_machine(tmp_path, None)


def test_a_plan_is_a_dry_run(run, tmp_path, monkeypatch, here) -> None:
    monkeypatch.chdir(tmp_path)
    of(here, monkeypatch)
    code, planned, _ = run("plan", *ASKED)
    assert (code, run(*ASKED, "--dry-run")[:2]) == (0, (0, planned))
    assert planned.splitlines()[-1].startswith("this run takes about ")
    code, text, _ = run("plan", *ASKED, "--json")
    assert (code, run(*ASKED, "--dry-run", "--json")[:2]) == (0, (0, text))
    takes = json.loads(text)["takes"]
    assert takes["memory_bytes"] == max(stage["memory_bytes"] for stage in takes["stages"])
    assert list(tmp_path.iterdir()) == []


def test_a_matrix_is_one_line_of_jobs_that_are_exports(run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("plan", *ASKED, "--matrix")
    targets = "rtx5080,rtx4090,rtx5090"
    assert (code, out.count("\n")) == (0, 1)
    assert json.loads(out) == {
        "include": [{"name": name, "budget": name, "target": targets} for name in ("large", "medium", "small")]
    }
    code, out, _ = run("plan", "--budget", "large,small", *ASKED[2:], "--matrix", "--by", "target")
    assert code == 0
    assert json.loads(out)["include"] == [  # cards of one compute capability share their engine
        {"name": "rtx5080-rtx5090", "budget": "large,small", "target": "rtx5080,rtx5090"},
        {"name": "rtx4090", "budget": "large,small", "target": "rtx4090"},
    ]


def test_jobs_in_eight_bits_ask_for_budgets_by_the_names_of_the_budget_file(run) -> None:
    for by, names in (("budget", ["large", "small"]), ("target", ["large,small"] * 2)):
        code, out, _ = run("plan", "--budget", "large,small", *ASKED[2:], "--quantize", "int8", "--matrix", "--by", by)
        jobs = json.loads(out)["include"]
        assert (code, [job["budget"] for job in jobs]) == (0, names)
    assert [job["name"] for job in jobs] == ["rtx5080-rtx5090", "rtx4090"]


def test_jobs_of_a_described_target_are_exports_too(run) -> None:
    """Its name, which files have, describes it no more."""
    text = "sm89:24GiB:1008GBps"
    for by in ("budget", "target"):
        code, out, _ = run("plan", "--budget", "small", "--target", f"{text},rtx5080", "--matrix", "--by", by)
        jobs = json.loads(out)["include"]
        assert (code, {name for job in jobs for name in job["target"].split(",")}) == (0, {text, "rtx5080"})
        assert not any(":" in job["name"] for job in jobs)
        for job in jobs:
            assert run("plan", "--budget", job["budget"], "--target", job["target"], "--matrix")[0] == 0


def test_programs_hear_what_people_do(run, sparse_12b) -> None:
    """The checkpoint has no tokenizer; no engine carries a library."""
    asked = ("--checkpoint", str(sparse_12b), "--budget", "6b", "--target", "rtx5080", "--allow-short")
    code, out, err = run("plan", *asked, "--json")
    assert code == 0
    notes = json.loads(out)["notes"]
    assert notes
    assert [line for line in err.splitlines() if line.startswith("note: ")] == [f"note: {note}" for note in notes]


def test_a_matrix_of_what_cannot_be_built_is_refused(run, sparse_12b) -> None:
    code, out, err = run("plan", "--checkpoint", str(sparse_12b), "--budget", "12b", "--target", "rtx5080", "--matrix")
    assert (code, out) == (2, "")
    assert "at least one budget that fits it" in err
    asked = ("--checkpoint", str(sparse_12b), "--budget", "12b,6b", "--target", "rtx5080", "--matrix")
    assert run("plan", *asked)[0] == 0
    code, out, err = run("plan", *asked, "--require-fit")
    assert (code, out) == (1, "")
    assert "--require-fit: expected every budget to fit every target, found 12b on rtx5080 at 16384 tokens" in err
    code, _, err = run("plan", "--budget", "none", "--target", "rtx5080", "--matrix")
    assert (code, "none" in err) == (2, True)


@pytest.mark.parametrize("command", [(), ("--dry-run",), ("--json",)])
def test_a_machine_with_too_little_memory_is_refused_before_anything_is_built(
    run, tmp_path, monkeypatch, here, command
) -> None:
    monkeypatch.chdir(tmp_path)
    of(replace(here, memory=SMALL), monkeypatch)
    code, out, err = run(*ASKED, *command)
    assert code == 1
    assert "memory: expected about" in err
    assert "found 300.0 MiB on the memory limit of its control group (0.5 GiB)" in err
    assert ("VRAM@16k" in out) == (command != ("--json",))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_refused_with_what_would_do(run, tmp_path, monkeypatch, here, sparse_12b) -> None:
    monkeypatch.chdir(tmp_path)
    of(replace(here, memory=None, disk=Space(10**10, "the file system of /x")), monkeypatch)
    asked = ("--checkpoint", str(sparse_12b), "--budget", "all", "--target", "rtx5080")
    code, _, err = run("plan", *asked, "--weights", "sliced")
    assert code == 1
    assert "free for the bundle, found 9.3 GiB on the file system of /x. Free some space, name an --output on" in err
    assert run("plan", *asked)[0] == 0  # shards that are linked take no room
    assert run("plan", *asked, "--weights", "sliced", "--allow-short")[0] == 0


def test_merge_joins_bundles_and_names_what_is_wrong(run, tmp_path, demo_bundle) -> None:
    code, out, _ = run("merge", str(demo_bundle), "--output", str(tmp_path / "out"))
    assert code == 0
    assert out.splitlines()[0] == "large: rtx5080 at 2048, native"
    assert f"bundle {tmp_path}/out: " in out
    code, _, err = run("merge", str(demo_bundle), str(tmp_path / "none"), "--output", str(tmp_path / "more"))
    assert (code, "none: expected a bundle, found no such folder" in err) == (2, True)
    assert not (tmp_path / "more").exists()
    assert run("merge", "--output", str(tmp_path / "more"))[0] == 2
