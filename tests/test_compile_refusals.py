"""What is refused: an engine that is too large, a card that is too small unless that is allowed, a bad request."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.compile import export
from elastic_export.engine import prepare
from elastic_export.ops.contract import read_contract
from elastic_export.plan import limits, reckoning
from elastic_export.plan.job import ExportJob, ExportOptions, plan_job
from elastic_export.progress import Progress
from elastic_runtime.errors import BuildError, InputError
from elastic_runtime.format.budget_size import Activation
from small_export import ARCH, SIZES, SMALL, contents, run, small_weights, write_small
from synthetic import write_checkpoint

# In the worker of test_compile.py: it has traced the parent.
pytestmark = [pytest.mark.usefixtures("exports_trace_once"), pytest.mark.xdist_group("compile")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("refused") / "tiny")


def test_an_engine_above_the_activation_bound(tmp_path: Path, checkpoint: Path, monkeypatch: Any) -> None:
    """An engine above the activation bound is refused, with the figure, and nothing is written."""
    monkeypatch.setattr(prepare, "activation_bounds", lambda *args, **more: (1, 1))
    with pytest.raises(
        BuildError, match=r"activation memory of the engine in decode: .* 1 bytes, found \d+\. .*--allow-oversize"
    ):
        run(checkpoint, tmp_path / "out", verify=False)
    assert list(tmp_path.iterdir()) == []


def test_an_engine_above_the_bounds_is_kept_where_that_is_allowed(
    tmp_path: Path, checkpoint: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(prepare, "activation_bounds", lambda *args, **more: (1 << 40, 1))
    monkeypatch.setattr(prepare, "size_bound", lambda *args: 2)
    result = run(checkpoint, tmp_path / "out", verify=False, allow_oversize=True)
    [engine] = result.budgets[0].engines
    assert (facts := engine.facts) is not None
    assert [text.partition(", found")[0] for text in facts.oversize] == [
        "activation memory of the engine in prefill: expected at most 1 bytes",
        "size of the engine: expected at most 2 bytes where its weights are inputs",
    ]
    report = json.loads((tmp_path / "out" / "small" / "report.json").read_text())
    assert set(facts.oversize) <= set(report["engines"]["small/rtx5080.engine"]["remarks"])


CONTRACTS = [
    ("plugin", {"plugin": "must_not", "native": "must_not"}, "must_not in its contract for plugin ops"),
    ("native", {"plugin": "must", "native": "must"}, "must in its contract for native ops"),
    ("native", {"plugin": "must"}, "no rule in its contract for native ops"),
    ("native", None, "no rule in its contract for plugin ops"),
]


@pytest.mark.parametrize(("ops", "alias", "found"), CONTRACTS)
def test_a_contract_that_shares_other_buffers_than_the_interface(
    tmp_path: Path, checkpoint: Path, monkeypatch: Any, ops: Any, alias: dict[str, str] | None, found: str
) -> None:
    """Else an engine of two buffers would be bound to one, or the other way round, and race on the card. A plan sees
    it.
    """
    contract = read_contract("mamba2_mixer")
    rules = contract["outputs"][2].pop("alias")
    if alias is not None:
        contract["outputs"][2]["alias"] = {**alias, "input": rules["input"]}
    monkeypatch.setattr(limits, "read_contract", lambda folder: contract)
    told = rf"^ssm_state_out of Mamba2Mixer: expected the rule must.* for the buffer of ssm_state, .*, found {found}"
    with pytest.raises(BuildError, match=told):
        plan_job(Checkpoint.open(checkpoint), ExportOptions("small", "rtx5080", tmp_path / "out", ops=ops), demo=False)


@pytest.fixture
def short_of_scratch(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ExportJob]:
    """A job for a card of 618 MiB, 3.6 MiB beside the reserve: enough for the models, which the plan says without
    scratch, not for their engines. `others`: targets without a limit besides.
    """
    monkeypatch.setattr(reckoning, "estimated_activation", lambda *args, **more: Activation(0))

    def make(budgets: str = "small", others: str = "", **more: Any) -> ExportJob:
        options = ExportOptions(budgets, f"rtx5080{others}", tmp_path / "out", verify=False, **SIZES, **more)
        job = plan_job(Checkpoint.open(checkpoint), options, demo=False)
        cards = {t.name: replace(t, usable_mib=618) if t.name == "rtx5080" else t for t in job.targets}
        engines = tuple(replace(e, targets=tuple(cards[t.name] for t in e.targets)) for e in job.engines)
        job = replace(job, targets=tuple(cards.values()), engines=engines)
        assert job.misfits() == []
        job.check_fit()
        return job

    return make


def test_what_was_asked_to_fit_is_reckoned_again_with_the_builders_figure(
    tmp_path: Path, short_of_scratch: Callable[..., ExportJob]
) -> None:
    required = short_of_scratch(require_fit=True, allow_unfit=True)
    with pytest.raises(
        BuildError, match=r"--require-fit: .*, found small/rtx5080\.engine needs 0\.6 GiB at 64 tokens\. Ask for"
    ) as caught:
        export(required, Progress())
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_nothing_fits_once_it_is_built(
    tmp_path: Path, short_of_scratch: Callable[..., ExportJob]
) -> None:
    """The card that is short is named, with every engine of its own; the other target is not."""
    with pytest.raises(
        BuildError,
        match=r"^target rtx5080: expected at least one engine that fits it once it is built, "
        r"found full/rtx5080\.engine needs 0\.6 GiB at 64 tokens; full/rtx5080\.native\.engine needs [^;]* at 64 "
        r"tokens; small/rtx5080\.engine needs [^;]* at 64 tokens; small/rtx5080\.native\.engine needs [^;]* at 64 "
        r"tokens\. Ask for a smaller .* --allow-unfit",
    ) as caught:
        export(short_of_scratch("all", ",rtx5090"), Progress())
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_once_it_is_built_is_kept_where_that_is_allowed(
    short_of_scratch: Callable[..., ExportJob],
) -> None:
    manifest = export(short_of_scratch(others=",rtx", allow_unfit=True), Progress()).manifest
    found = {engine.target: engine.fits.enough for engine in manifest.budgets[0].engines}
    assert found == {"rtx5080": False, "rtx": None}


BAD = [
    ({"targets": "rtx5081"}, r"target 'rtx5081': .*no such target.*Try .*rtx5080"),
    ({"targets": ""}, r"target: expected at least one of"),
    ({"budgets": "smal"}, r"smal.*small"),
    ({"max_contexts": (0,)}, r"--max-context: expected 1 or more, found 0"),
    ({"max_contexts": ()}, r"--max-context: expected different contexts"),
    ({"max_contexts": (64, 64)}, r"--max-context: expected different contexts"),
    ({"max_tokens": 0}, r"--max-tokens: expected 1 or more, found 0"),
    ({"max_batch": 0}, r"--max-batch: expected 1 or more, found 0"),
    ({"max_tokens": 65}, r"--max-tokens: expected at most --max-context \(64\), found 65"),
    (
        {"max_contexts": (64, 24576), "ops": "native"},
        r"--max-context: expected at most 24560 .*found 24576\. Lower --max-context",
    ),
    ({"precision": "fp16"}, r"--precision: expected bf16, in which the shared .*found fp16\. Use --weights sliced"),
    ({"external_weights": True, "weights": "sliced"}, r"--external-weights: expected --weights shared"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "message"), BAD, ids=[str(options) for options, _ in BAD])
def test_a_bad_request_is_named_before_anything_happens(
    tmp_path: Path, checkpoint: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        run(checkpoint, tmp_path / "out", **options)
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_too_much_to_embed(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elastic_export.plan.job.EMBEDDED_LIMIT", 1000)
    with pytest.raises(
        InputError, match=r"--weights embedded: expected at most 1000 bytes of weights, found \d+ in small"
    ):
        run(checkpoint, tmp_path / "out", weights="embedded")


def test_an_output_that_is_no_bundle(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"thesis|bundle"):
        run(checkpoint, tmp_path / "out")
    assert contents(tmp_path / "out") == {"thesis.txt": b"mine"}
    with pytest.raises(InputError, match="folder of its own"):
        run(checkpoint, checkpoint.parent, force=True)


def test_a_value_the_precision_cannot_hold(tmp_path: Path) -> None:
    weights = small_weights()
    weights["backbone.layers.0.norm.weight"][3] = 1e5
    write_checkpoint(tmp_path / "ckpt", ARCH, weights, [SMALL])
    with pytest.raises(BuildError, match=r"layers\.0\.norm\.weight.*expected values that fp16 can hold, found 99840"):
        run(tmp_path / "ckpt", tmp_path / "out", weights="sliced", precision="fp16")
    assert [p.name for p in tmp_path.iterdir()] == ["ckpt"]
