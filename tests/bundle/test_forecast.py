"""What a run takes of a machine, worked out by hand where it can be, and the machines that are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_export.bundle import forecast as module
from elastic_export.bundle.forecast import check_machine, disk_needed, forecast
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.layers.architecture import Architecture
from elastic_export.layers.budget import Budget
from elastic_export.plan.fit_table import duration
from elastic_export.plan.job import ExportJob, ExportOptions, plan_job
from elastic_export.plan.machine import Machine, Space
from elastic_export.plan.work import Rates, Work
from elastic_runtime.errors import BuildError
from synthetic import BUDGETS_12B, NANO_12B, write_checkpoint, write_sparse_checkpoint

GB = 10**9
#: A machine of round numbers: 2 processors, 100 GFLOP/s, 4 GB/s for matrices, 1 GB/s from and to the disk.
RATES = Rates(1e11, 5e10, 4e9, 1e10, 5e8, 1e9, 1e9, 2e7)
ARCH = Architecture("M-*", 61, 24, (40,), (4,), 8, 2, 8, 4, 4, 2, 16, 1e-5, (0.0, math.inf))


def machine(memory: int = 1000 * GB, disk: int = 1000 * GB) -> Machine:
    return Machine(Space(memory, "this machine"), Space(disk, "the file system of /x"), 2, RATES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base, weights = tmp_path_factory.mktemp("ckpt"), random_weights(ARCH, np.random.default_rng(0))
    budgets = [Budget.full(ARCH, "full"), Budget("half", 16, (20,), (2,), 4, 4, ())]
    return {
        "tiny": write_checkpoint(base / "tiny", ARCH, weights, budgets, "bf16"),
        "12b": write_sparse_checkpoint(base / "12b", NANO_12B, BUDGETS_12B),
    }


Plan = Callable[..., ExportJob]


@pytest.fixture
def plan(folders: dict[str, Path], tmp_path: Path) -> Plan:
    """`plan("12b", budgets, targets, **options)`."""

    def make(name: str = "12b", budgets: str = "all", targets: str = "rtx5080", **options: Any) -> ExportJob:
        return plan_job(
            Checkpoint.open(folders[name]), ExportOptions(budgets, targets, tmp_path / "o", **options), demo=False
        )

    return make


def test_work_adds_up_and_takes_its_time() -> None:
    work = Work(products=2e11, read=3e9) + Work(products=1e11) * 3
    assert RATES.seconds(work) == 5 + 3
    assert [field.name for field in fields(Work)] == [field.name for field in fields(Rates)]
    assert RATES.seconds(Work(*astuple(RATES))) == len(fields(Work))


def test_verification_holds_a_layer_of_the_parent_and_one_of_a_file_in_float32(plan: Plan) -> None:
    """An MLP of the 12B: 2 x 5120 x 20480 x 4 B = 839 MB, and a budget's beside it."""
    layer = 4 * 2 * 5120 * 20480
    for budgets, most in (("6b", 2.5), ("all", 4.0)):
        verified = forecast(plan(budgets=budgets), machine())
        plain = forecast(plan(budgets=budgets, verify=False, jobs=1, ops="plugin"), machine())
        assert verified.largest.name == "verify"
        assert verified.memory - plain.memory < most * layer
        assert verified.memory > layer
        assert plain.memory < GB < verified.memory


def test_time_follows_the_machine(plan: Plan) -> None:
    job = plan()
    slow = Machine(*list(vars(machine()).values())[:3], Rates(*(rate / 2 for rate in astuple(RATES))))
    assert forecast(job, slow).seconds == pytest.approx(2 * forecast(job, machine()).seconds)
    stages = {stage.name: stage.seconds for stage in forecast(job, machine()).stages}
    assert max(stages, key=lambda name: stages[name]) == "verify"
    # Digests of 24.6 GB at 500 MB/s on two processors, and as much read at 1 GB/s: 24.6 + 12.3 s beside the compile.
    quick = forecast(plan(verify=False), machine())
    assert quick.beside == pytest.approx(24.62 * 3 / 2, rel=0.01)
    assert quick.seconds == max(quick.beside, sum(stage.seconds for stage in quick.stages))


def test_linked_shards_take_no_disk_and_sliced_ones_their_size(plan: Plan) -> None:
    shared, sliced = plan(), plan(weights="sliced")
    weights = sum(size.weight_bytes for size in shared.sizes)
    assert weights == 24_620_002_304 + 18_127_732_032 + 9_693_346_304
    assert disk_needed(sliced) == disk_needed(shared) + weights
    assert disk_needed(shared) < GB
    more = plan(targets="rtx5080,rtx4090", max_contexts=(4096, 16384))
    assert disk_needed(shared) < disk_needed(more) < 2 * GB
    assert disk_needed(plan(verify=False)) < disk_needed(shared)


def test_shards_of_another_file_system_are_copied_but_for_those_that_an_older_bundle_has(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = plan("tiny")
    here = disk_needed(job)
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setattr(module, "existing_folder", lambda path: elsewhere)
    real = Path.stat
    other = lambda self, **k: type("S", (), {"st_dev": -1})() if self == elsewhere else real(self, **k)  # noqa: E731
    monkeypatch.setattr(Path, "stat", other)
    [shard] = job.checkpoint.shards
    assert disk_needed(job) == here + real(shard).st_size
    assert disk_needed(replace(job, options=replace(job.options, external_weights=True))) == here
    (job.options.output / "weights").mkdir(parents=True)
    (job.options.output / "weights" / shard.name).write_bytes(b"x" * real(shard).st_size)
    assert disk_needed(job) == here


@pytest.mark.parametrize(
    ("options", "space", "expected"),
    [
        (
            {},
            {"memory": 2 * GB},
            "memory: expected about {memory} free for verify, found 1.9 GiB on this machine. Leave verification out "
            "(--no-verify, {less}), ask for one budget at a time, the others with --add, close other programs or use a "
            "larger machine; the figures are estimates, and --allow-short begins all the same.",
        ),
        (
            {"budgets": "6b"},
            {"memory": GB // 10},
            "memory: expected about {memory} free for verify, found 95.4 MiB on this machine. Close other programs or",
        ),
        ({"verify": False}, {"memory": GB // 10}, "free for engines, found 95.4 MiB on this machine. Close other"),
        ({"verify": False, "jobs": 2}, {"memory": GB // 10}, "on this machine. Use --jobs 1, close other programs"),
        (
            {},
            {"disk": GB // 10},
            "disk: expected {disk} free for the bundle, found 95.4 MiB on the file system of /x. Free some space, name "
            "an --output on another disk; the figures",
        ),
        ({"weights": "sliced"}, {"disk": 40 * GB}, "name an --output on another disk, use --weights shared; the"),
        (
            {"weights": "sliced", "precision": "fp16"},
            {"disk": 40 * GB},
            "name an --output on another disk, ask for fewer budgets; the",
        ),
    ],
)
def test_a_machine_that_is_too_small_is_refused_with_figures_and_ways_out(
    plan: Plan, options: dict[str, Any], space: dict[str, int], expected: str
) -> None:
    job, here = plan(**options), machine(**space)
    found, plain = forecast(job, here), forecast(plan(**(options | {"verify": False})), here)
    words = {"memory": found.memory, "less": plain.memory, "disk": found.disk}
    with pytest.raises(BuildError) as refused:
        check_machine(found, job)
    assert expected.format(**{name: module.size_text(size) for name, size in words.items()}) in str(refused.value)
    check_machine(found, replace(job, options=replace(job.options, allow_short=True)))
    check_machine(forecast(job, machine()), job)


def test_what_just_fits_is_not_refused_and_unknown_memory_neither(plan: Plan) -> None:
    job = plan()
    found = forecast(job, machine())
    check_machine(forecast(job, machine(found.memory, found.disk)), job)
    for short in (machine(memory=found.memory - 1), machine(disk=found.disk - 1)):
        with pytest.raises(BuildError):
            check_machine(forecast(job, short), job)
    unknown = forecast(job, replace(machine(), memory=None, disk=None))
    check_machine(unknown, job)
    assert "of memory; " in unknown.text()
    assert unknown.text().endswith(" of disk")
    there = unknown.document()["machine"]
    assert (there["free_memory_bytes"], there["free_disk_bytes"]) == (None, None)


def test_weights_inside_are_held_three_times(plan: Plan) -> None:
    options: dict[str, Any] = {"verify": False, "jobs": 1}
    shared, inside = (forecast(plan("tiny", weights=mode, **options), machine()) for mode in ("shared", "embedded"))
    engines = [next(s.memory for s in found.stages if s.name == "engines") for found in (shared, inside)]
    assert engines[1] - engines[0] == 3 * plan("tiny").sizes[0].weight_bytes


def test_the_line_and_the_document_say_the_same(plan: Plan) -> None:
    found = forecast(plan(), machine())
    text, document = found.text(), found.document()
    assert text.startswith(f"this run takes about {duration(document['seconds'])} here, ")
    assert f" of it verify; {module.size_text(document['memory_bytes'])} of memory of 931.3 GiB free; " in text
    assert text.endswith(f"{module.size_text(document['disk_bytes'])} of disk of 931.3 GiB free")
    assert [stage["name"] for stage in document["stages"]] == [
        "trace",
        "weights",
        "passes and files",
        "verify",
        "engines",
    ]


def test_engines_are_built_side_by_side_where_the_machine_has_room(plan: Plan) -> None:
    """Two processors build two at a time, in half the time, and hold twice as much; little memory builds one."""

    def engines(memory: int = 1000 * GB, jobs: int | None = None) -> Any:
        found = forecast(plan("tiny", verify=False, jobs=jobs), machine(memory))
        return next(stage for stage in found.stages if stage.name == "engines")

    one, two = engines(jobs=1), engines()
    process = 2 * one.memory - two.memory
    assert one.seconds == pytest.approx(2 * two.seconds)
    assert 0 < process < one.memory < two.memory
    assert engines(memory=2 * GB) == one


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (42.4, "42 s"), (99, "99 s"), (100, "2 min"), (5000, "83 min"), (9000, "2.5 h")]
)
def test_durations_have_two_figures(seconds: float, text: str) -> None:
    assert duration(seconds) == text
