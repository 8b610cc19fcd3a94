"""What a bundle ships is evaluated as the checkpoint that it was made of, whichever way it holds the weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.evaluate.counterpart import rounded_models
from elastic_export.evaluate.evaluate import evaluate
from elastic_export.evaluate.from_bundle import bundle_models
from elastic_export.evaluate.from_checkpoint import checkpoint_models
from elastic_export.evaluate.passage import Passage, Window
from elastic_export.evaluate.result import Measured, Reference, Source, evaluation
from elastic_export.evaluate.score import Scored
from elastic_export.evaluate.sub_model import SubModel
from elastic_export.plan.job import ExportOptions, budget_sizes
from elastic_export.progress import Progress
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from elastic_runtime.fit.vram import vram_needed
from elastic_runtime.format.interface import Precision
from small_export import ARCH, run, write_small

pytestmark = [pytest.mark.xdist_group("evaluated bundles"), pytest.mark.usefixtures("exports_trace_once")]


def passage() -> Passage:
    """Random ids: the small parent has no tokenizer."""
    ids = np.random.default_rng(1).integers(0, ARCH.vocab_size, 50)
    windows = (Window(ids[:30], 29), Window(ids[30:], 19))
    return Passage("ids", "", windows, 48, 48, (), 30, 30, True)


def scores(models: tuple[list[SubModel], SubModel], precision: str = "fp32") -> dict[str, Scored]:
    asked, reference = models
    subjects = [(reference, "fp32"), *((model, precision) for model in asked)]
    found = evaluate(subjects, 0, passage(), Progress())[1:]
    return {model.name: scored for model, scored in zip(asked, found, strict=True)}


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory: pytest.TempPathFactory, exported: Callable[..., Path]) -> Callable[..., Path]:
    """`bundle_of(weights=…, …)`: a bundle of both budgets, made once each."""
    made: dict[tuple[Any, ...], Path] = {}

    def bundle(**options: Any) -> Path:
        key = tuple(sorted(options.items()))
        if key not in made:
            made[key] = exported(tmp_path_factory.mktemp("bundle") / "out", **options)
        return made[key]

    return bundle


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint."""
    return write_small(tmp_path_factory.mktemp("small") / "model")


@pytest.fixture(scope="session")
def exported(model_folder: Path) -> Callable[..., Path]:
    """`exported(output, **options)`: an export of it."""

    def export(output: Path, **options: Any) -> Path:
        run(model_folder, output, budgets="all", verify=False, **options)
        return output

    return export


@pytest.mark.parametrize(
    "options",
    [{"weights": "shared"}, {"weights": "sliced"}, {"weights": "embedded"}, {"external_weights": True}],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_a_bundle_scores_as_its_checkpoint(
    options: dict[str, Any], bundle_of: Callable[..., Path], model_folder: Path
) -> None:
    external = model_folder if options.get("external_weights") else None
    bundle = Bundle.open(bundle_of(**options), external=external)
    assert scores(bundle_models(bundle, "all")) == scores(checkpoint_models(Checkpoint.open(model_folder), "all"))


def test_converted_weights_are_those_that_ship(bundle_of: Callable[..., Path], model_folder: Path) -> None:
    bundle = Bundle.open(bundle_of(weights="sliced", precision="fp16"))
    shipped = scores(bundle_models(bundle, "small"), "fp16")["small"]
    assert shipped.nats == scores(checkpoint_models(Checkpoint.open(model_folder), "small"), "fp16")["small"].nats


def test_weights_in_eight_bits_are_what_their_values_mean(bundle_of: Callable[..., Path]) -> None:
    """Off by half a step of a row's scale at most, under the names of the parent; q, k and v each for themselves."""
    quantised = bundle_models(Bundle.open(bundle_of(quantise="int8")), "all")[0]
    for mine, theirs in zip(quantised, bundle_models(Bundle.open(bundle_of(weights="shared")), "all")[0], strict=True):
        matrices = 0
        assert mine.weights.names == theirs.weights.names
        for name, shape in theirs.shapes():
            found, whole = mine.weights.load(name), theirs.weights.load(name).astype(np.float32)
            assert found.shape == mine.weights.shape(name) == shape
            off = np.abs(found.astype(np.float32) - whole)
            # The scale is of the parent's row, which may reach further than what is kept of it.
            assert off.max() <= 4 * np.abs(whole).max() / 127, name
            np.testing.assert_array_equal(mine.weights.rows(name, 1, 2), found[1:3])
            matrices += len(shape) == 2 and bool(off.any())
        assert matrices > 4
    assert scores((quantised, quantised[0]))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_checkpoint_rounds_to_what_its_bundle_ships(
    precision: str, bundle_of: Callable[..., Path], model_folder: Path
) -> None:
    """Bit for bit, so that the loss can be known before anything is exported."""
    checkpoint = Checkpoint.open(model_folder)
    rounded = rounded_models(checkpoint, checkpoint_models(checkpoint, "all")[0])
    shipped = bundle_models(Bundle.open(bundle_of(quantise="int8")), "all")[0]
    for mine, theirs in zip(rounded, shipped, strict=True):
        for name, _ in theirs.shapes():
            np.testing.assert_array_equal(mine.weights.load(name), theirs.weights.load(name), name)
        assert mine.quantisation == theirs.quantisation
    assert scores((rounded, rounded[0]), precision) == scores((shipped, shipped[0]), precision)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_vram_of_eight_bits_is_what_a_dry_run_reckons(
    precision: Precision, bundle_of: Callable[..., Path], model_folder: Path
) -> None:
    models, checkpoint = bundle_models(Bundle.open(bundle_of(quantise="int8")), "all")[0], Checkpoint.open(model_folder)
    found = [Measured(m.name, m.architecture, precision, Scored(1.0, 0.0, 1), m.quantisation) for m in models]
    rows = evaluation(Source("bundle", "small", "bf16"), passage(), found, Reference("full", "fp32"), 64).rows
    options = ExportOptions("all", "rtx5080", Path("out"), quantise="int8")
    sizes = budget_sizes(checkpoint, list(checkpoint.budgets.values()), options)
    assert [row.weight_bytes for row in rows] == [size.weight_bytes for size in sizes]
    assert [row.vram_bytes for row in rows] == [vram_needed(size, context=64).total for size in sizes]
    assert [row.quantisation for row in rows] == ["int8", "int8"]


def test_the_largest_budget_of_a_bundle_is_what_others_are_compared_with(bundle_of: Callable[..., Path]) -> None:
    asked, reference = bundle_models(Bundle.open(bundle_of(weights="shared")), "small")
    assert ([model.name for model in asked], reference.name) == (["small"], "full")


def test_external_weights_are_asked_for_and_an_unknown_budget_is_named(bundle_of: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="--weights-folder"):
        bundle_models(Bundle.open(bundle_of(external_weights=True)), "all")
    with pytest.raises(InputError, match=r"smal.*nearest: small"):
        bundle_models(Bundle.open(bundle_of(weights="shared")), "smal")


def test_a_file_of_other_widths_than_the_manifest_is_refused(bundle_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle_of(weights="shared"), folder)
    bundle = Bundle.open(folder)
    model = onnx.load(folder / "small" / "model.onnx", load_external_data=False)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "state_size":
                attribute.i += 1
    onnx.save(model, folder / "small" / "model.onnx")
    with pytest.raises(InputError, match=r"small/model\.onnx: expected the widths of the manifest"):
        bundle_models(bundle, "all")
