"""What a forecast says will be carried over from an older bundle is what the export then carries over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elastic_export.bundle import digests, made_from
from elastic_export.bundle.forecast import Forecast, check_machine, disk_needed, forecast
from elastic_export.bundle.forecast_carried import Carried, carried_over
from elastic_export.plan.eight_bits import parent_bytes
from elastic_export.plan.job import ExportJob
from elastic_export.plan.machine import Machine, Space
from elastic_export.plan.work import Rates
from elastic_runtime.errors import BuildError, InputError
from repeated_export import BUDGETS, Seen, plan, run, write_budgets
from small_export import contents

# One worker: its exports share a trace.
pytestmark = [pytest.mark.usefixtures("exports_trace_once"), pytest.mark.xdist_group("compile_incremental")]

INT8: dict[str, Any] = {"quantise": "int8"}
TARGETS = "rtx5080,rtx4090"
RATES = Rates(1e11, 5e10, 4e9, 1e10, 5e8, 1e9, 1e9, 2e7)


def on_a_machine(job: ExportJob, carried: Carried | None = None, space: int = 1 << 40) -> Forecast:
    here = Machine(Space(space, "this machine"), Space(space, "the file system"), 2, RATES)
    return forecast(job, here, carried_over(job) if carried is None else carried)


def stages(found: Forecast) -> list[str]:
    return [stage.name for stage in found.stages]


@pytest.fixture
def out(tmp_path: Path, checkpoint: Path, seen: Seen) -> Iterator[Path]:
    """A bundle of both budgets, not verified."""
    run(checkpoint, tmp_path / "out", seen)
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "full with its engine; half with its engine"),
        ({"budgets": "half"}, "half with its engine"),
        ({"budgets": "half", "add": True}, "half with its engine; full, not asked for"),
        (
            {"budgets": "half", "add": True, "targets": "rtx4090"},
            "half without an engine; full, 1 engine of half, not asked for",
        ),
        ({"budgets": "half", "add": True, "debug": True}, "full, not asked for"),
        ({"targets": TARGETS}, "full with 1 of its 2 engines; half with 1 of its 2 engines"),
        ({"max_contexts": (48,)}, "full without an engine; half without an engine"),
        ({"ops": "plugin,native"}, "full with 1 of its 2 engines; half with 1 of its 2 engines"),
        ({"verify": True}, "of full its engine; of half its engine"),
        ({"verify": True, "targets": TARGETS}, "of full 1 of its 2 engines; of half 1 of its 2 engines"),
        ({"logits": "all"}, "nothing"),
        ({"debug": True}, "nothing"),
        (INT8, "nothing"),
    ],
)
def test_what_is_told_is_what_the_export_does(
    checkpoint: Path, seen: Seen, out: Path, options: dict[str, Any], told: str
) -> None:
    before, job = contents(out), plan(checkpoint, out, **options)
    carried = carried_over(job)
    assert carried.text(job) == f"carried over from {out}: {told}"
    assert contents(out) == before
    result = run(checkpoint, out, seen, **options)
    assert {budget.budget.name for budget in result.budgets if budget.kept} == carried.budgets
    kept = [engine.entry.file for b in result.budgets for engine in b.engines if engine.facts is None]
    document = carried.document(job)
    assert document["engines"] == kept
    assert {*document["budgets"]} == carried.budgets | ({"full"} if options.get("add") else set())
    engines = {budget.name: len(budget.engines) for budget in result.manifest.budgets}
    besides = {budget.budget.name: engines[budget.budget.name] - len(budget.engines) for budget in result.budgets}
    assert {name: count for name, count in besides.items() if count} == carried.others


def test_only_what_is_made_is_counted(checkpoint: Path, seen: Seen, out: Path, tmp_path: Path) -> None:
    """Of a budget with other widths as of an export of that one alone."""
    write_budgets(checkpoint, {**BUDGETS, "half": {"hidden_size": 16}})
    job, alone = plan(checkpoint, out, verify=False), plan(checkpoint, tmp_path / "new", budgets="half", verify=False)
    found, new = on_a_machine(job), on_a_machine(alone)
    assert found.carried.text(job) == f"carried over from {out}: full with its engine"
    assert found.disk == new.disk < disk_needed(job)
    of_both, of_one = ({s.name: (s.memory, s.seconds) for s in f.stages} for f in (found, new))
    assert {name: cost for name, cost in of_both.items() if name != "compare"} == of_one
    assert new.carried.text(alone) == ""


def test_the_same_again_takes_next_to_nothing(checkpoint: Path, seen: Seen, out: Path) -> None:
    found = on_a_machine(plan(checkpoint, out))
    assert (stages(found), found.disk) == (["compare", "weights"], 0)
    asked = plan(checkpoint, out, targets=TARGETS)
    more = on_a_machine(asked)
    assert stages(more) == ["compare", "start", "weights", "engines"]
    assert 0 < more.disk < disk_needed(asked) / 2
    run(checkpoint, out, seen, targets=TARGETS)
    told = f"carried over from {out}: full with its 2 engines; half with its 2 engines"
    assert carried_over(asked).text(asked) == told


def test_what_is_carried_over_is_read_unless_its_digest_is_remembered(
    checkpoint: Path, seen: Seen, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "LEAST_REMEMBERED", 1)
    run(checkpoint, out, seen)
    shards = sum(shard.stat().st_size for shard in checkpoint.glob("*.safetensors"))
    known, again = (carried_over(plan(checkpoint, out, distrust=distrust)).unread for distrust in (False, True))
    assert again - known == shards
    files = sum(file.stat().st_size for name in BUDGETS for file in (out / name).iterdir())
    assert known == files


def test_a_machine_too_small_for_what_is_left_is_refused(checkpoint: Path, seen: Seen, out: Path) -> None:
    same, more = plan(checkpoint, out), plan(checkpoint, out, targets=TARGETS)
    space = on_a_machine(same).memory
    assert space > disk_needed(more)
    check_machine(on_a_machine(same, space=space), same)
    with pytest.raises(BuildError, match="free for engines"):
        check_machine(on_a_machine(more, space=space), more)


@pytest.mark.parametrize("options", [{}, {"weights": "sliced"}, INT8], ids=["shared", "sliced", "int8"])
def test_what_is_carried_over_is_not_advised_to_be_left_out(
    checkpoint: Path, seen: Seen, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Engines alone are built then: neither weights nor verification take what is short."""
    job = plan(checkpoint, tmp_path / "out", verify=True, targets=TARGETS, **options)
    stay = Carried(tmp_path / "out", frozenset(budget.name for budget in job.budgets), quantised="quantise" in options)
    memory, disk = (on_a_machine(job, stay, space=space) for space in (1, on_a_machine(job, stay).memory))
    assert stages(memory)[-1] == "engines"
    with pytest.raises(BuildError) as short:
        check_machine(memory, job)
    assert short.value.todo.startswith("close other programs or use a larger machine; ")
    with pytest.raises(BuildError, match="free for the bundle") as short:
        check_machine(replace(disk, machine=replace(disk.machine, disk=Space(1, "the file system"))), job)
    assert short.value.todo.startswith("free some space, name an --output on another disk; ")


def test_an_int8_parent_that_is_adopted_takes_no_disk_and_is_read_for_a_budget_that_is_made(
    checkpoint: Path, seen: Seen, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(checkpoint, out, seen, budgets="full", **INT8)
    job = plan(checkpoint, out, **INT8)
    found, new = on_a_machine(job), on_a_machine(job, Carried())
    assert found.carried.text(job) == f"carried over from {out}: full.int8 with its engine; the parent in eight bits"
    assert found.carried.document(job)["quantised_parent"] is True
    assert job.eight_bits is not None
    only_half = disk_needed(plan(checkpoint, out, budgets="half", **INT8))
    assert found.disk == only_half - parent_bytes(job.checkpoint, job.precision, job.eight_bits)
    times = [{stage.name: stage.seconds for stage in f.stages}["weights"] for f in (found, new)]
    assert 0 < times[0] < times[1]
    same = plan(checkpoint, out, budgets="full", **INT8)
    assert {stage.name: stage.seconds for stage in on_a_machine(same).stages}["weights"] == 0


def test_another_exporter_makes_all_again_but_what_is_not_asked_for(
    checkpoint: Path, seen: Seen, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made_from, "exporter_digest", lambda: "another")
    job = plan(checkpoint, out, budgets="half", add=True)
    carried = carried_over(job)
    assert carried.text(job) == f"carried over from {out}: full, not asked for"
    assert carried.unread == 0
    assert on_a_machine(job) == replace(on_a_machine(job, Carried()), carried=carried)


def test_what_cannot_be_added_is_refused_by_the_plan(checkpoint: Path, seen: Seen, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(checkpoint, out, seen, budgets="full", **INT8)
    write_budgets(checkpoint, {**BUDGETS, "odd": {"intermediate_size": 31}})
    with pytest.raises(InputError, match=r"--add, the parent in eight bits: .* found other matrices"):
        carried_over(plan(checkpoint, out, budgets="half", add=True, **INT8))
