"""The streamed evaluation against plain loops over the same text: the masked parent whole, and transformers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.dtypes import DTYPES
from elastic_export.evaluate.counterpart import rounded_models
from elastic_export.evaluate.evaluate import Subject, evaluate
from elastic_export.evaluate.from_checkpoint import PARENT, checkpoint_models
from elastic_export.evaluate.passage import Passage
from elastic_export.evaluate.score import Scored
from elastic_export.evaluate.sub_model import SubModel
from elastic_export.layers.budget import Budget
from elastic_export.layers.kind import HEAD
from elastic_export.progress import Progress
from elastic_export.reference import ElasticModel, budget_masks, empty_state
from elastic_export.reference.call import Call
from elastic_export.reference.model import rounding_to
from elastic_export.runs import TensorRuns
from elastic_export.weights.sliced import write_sliced
from elastic_runtime.errors import InputError
from elastic_runtime.format.interface import Precision
from elastic_runtime.ort.weight_source import Held
from masked_parent import load_reference
from quantised_checkpoint import write_quantised
from small_text_model import ARCH, EVEN, FULL, SMALL, TEXT, WIDE
from synthetic import write_checkpoint

TOLERANCE = 1e-4  # relative; 8e-8 is the worst seen in fp32, 2e-6 where roundings flip
CONTEXT = 64
"""A window's tokens in the plain loops; the first of each only predicts."""


def figures(scored: Scored, tokens: int, nbytes: int) -> dict[str, float]:
    return {
        "bits per byte": scored.nats / math.log(2) / nbytes,
        "nats": scored.nats / tokens,
        "divergence": scored.divergence / tokens,
        "top-1": scored.agreed / tokens,
    }


def plain(logits_of: Callable[[Tensor], Tensor], parent_of: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """The loop that anybody would write: windows of the text one by one, all logits at once."""
    data = TEXT.encode()
    nats = divergence = agreed = tokens = 0.0
    for begin in range(0, len(data) - 1, CONTEXT - 1):
        ids = torch.tensor(list(data[begin : begin + CONTEXT]))
        own, theirs = (of(ids).double().log_softmax(dim=-1)[:-1] for of in (logits_of, parent_of))
        nats -= float(own.gather(1, ids[1:, None]).sum())
        divergence += float((theirs.exp() * (theirs - own)).sum())
        agreed += int((own.argmax(dim=1) == theirs.argmax(dim=1)).sum())
        tokens += len(ids) - 1
    # A token is a byte, and the first one is not scored.
    return figures(Scored(nats, divergence, int(agreed)), int(tokens), len(data) - 1)


def masked(checkpoint: Checkpoint, budget: Budget, precision: str = "fp32") -> Callable[[Tensor], Tensor]:
    """Logits of the masked parent, all layers and weights at once; rounded as engines do where it is narrow."""
    narrow = DTYPES[precision].torch

    def read(name: str) -> np.ndarray[Any, Any]:
        array = np.asarray(checkpoint.read(name))
        stays = array.dtype == np.float32 and not name.endswith(WIDE)
        return array if stays else array.astype(DTYPES[precision].numpy)

    model = load_reference(ARCH, read, every_token=True)
    masks = budget_masks(ARCH, budget)
    options = {} if precision == "fp32" else {"rounding": rounding_to(narrow)}

    def logits(ids: Tensor) -> Tensor:
        return whole(model, ids, Call(torch.tensor([0]), torch.tensor([len(ids)]), {}, masks, **options))

    return logits


def whole(model: ElasticModel, ids: Tensor, call: Call) -> Tensor:
    call.state = empty_state(ARCH, 1, len(ids), torch.float32)
    with torch.inference_mode():
        x = model.embed(ids[None], call)
        for layer in model.body.layers:
            x = layer(x, call)
        return model.head(x, call)[0]


def streamed(checkpoint: Checkpoint, passage: Passage, *asked: tuple[str, str]) -> list[dict[str, float]]:
    """Figures of the budgets and precisions, beside the parent in fp32."""
    models = {model.name: model for model in checkpoint_models(checkpoint, "all")[0]}
    subjects = [(models["full"], "fp32"), *((models[name], precision) for name, precision in asked)]
    found = evaluate(subjects, 0, passage, Progress())
    return [figures(scored, passage.tokens, passage.nbytes) for scored in found][1:]


def close(found: dict[str, float], expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=TOLERANCE, abs=TOLERANCE / 10), name


@pytest.mark.usefixtures("cut_finely")
def test_every_budget_and_precision_is_what_a_plain_loop_over_the_masked_parent_says(
    checkpoint: Checkpoint, passage_of: Callable[..., Passage]
) -> None:
    budgets, precisions = (FULL, SMALL, EVEN), ("fp32", "bf16", "fp16")
    asked = [(budget, precision) for budget in budgets for precision in precisions]
    found = streamed(checkpoint, passage_of(TEXT, CONTEXT), *((budget.name, p) for budget, p in asked))
    parent = masked(checkpoint, FULL)
    for (budget, precision), figure in zip(asked, found, strict=True):
        close(figure, plain(masked(checkpoint, budget, precision), parent))
    by_name = dict(zip([(budget.name, p) for budget, p in asked], found, strict=True))
    assert by_name["full", "fp32"]["divergence"] == 0
    assert by_name["full", "fp32"]["top-1"] == 1
    assert 1e-6 < by_name["full", "bf16"]["divergence"] < 0.1 < by_name["small", "fp32"]["divergence"]
    assert by_name["full", "fp16"]["divergence"] < by_name["full", "bf16"]["divergence"] / 8  # three digits more


@pytest.mark.xdist_group("transformers")
@pytest.mark.parametrize("budget", [FULL, EVEN], ids=lambda budget: budget.name)
def test_it_is_what_a_plain_loop_over_transformers_says(
    budget: Budget, checkpoint: Checkpoint, passage_of: Callable[..., Passage], tmp_path: Path
) -> None:
    """Of a sub-model: with the checkpoint that is cut out for it."""
    logits = transformers_logits(checkpoint, budget, tmp_path / budget.name)
    parent = transformers_logits(checkpoint, FULL, tmp_path / "parent")
    [found] = streamed(checkpoint, passage_of(TEXT, CONTEXT), (budget.name, "fp32"))
    close(found, plain(logits, parent))


def transformers_logits(checkpoint: Checkpoint, budget: Budget, folder: Path) -> Callable[[Tensor], Tensor]:
    transformers = pytest.importorskip("transformers")
    write_sliced(checkpoint, budget, folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    config._attn_implementation = "eager"
    model = transformers.NemotronHForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32).eval()
    for module in model.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = ARCH.time_step_limit  # theirs clamps at time_step_min, whatever the config says

    def logits(ids: Tensor) -> Tensor:
        with torch.inference_mode():
            found: Tensor = model(ids[None], use_cache=False).logits[0]
        return found

    return logits


def test_a_stride_gives_tokens_more_context_and_scores_each_once(
    checkpoint: Checkpoint, passage_of: Callable[..., Passage]
) -> None:
    """Against one window over the whole text: with a stride of one every token but the first has nearly as much."""
    text = TEXT[:90]
    wide, fine = passage_of(text, 512), passage_of(text, len(text.encode()) - 4, stride=1)
    assert (wide.tokens, wide.nbytes) == (fine.tokens, fine.nbytes)
    [one] = streamed(checkpoint, wide, ("small", "fp32"))
    [many] = streamed(checkpoint, fine, ("small", "fp32"))
    assert many["nats"] == pytest.approx(one["nats"], rel=0.02)
    assert many["nats"] != one["nats"]


def test_weights_are_read_once_for_all_budgets_of_a_layer(
    checkpoint: Checkpoint, passage_of: Callable[..., Passage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layer after layer: no tensor of an earlier one is asked for again once a later one has been."""
    cut, seen = Checkpoint.cut, list[str]()

    def noted(self: Checkpoint, name: str, runs: TensorRuns) -> np.ndarray[Any, Any]:
        seen.append(name.split(".mixer.", maxsplit=1)[0])
        return cut(self, name, runs)

    monkeypatch.setattr(Checkpoint, "cut", noted)
    streamed(checkpoint, passage_of(TEXT[:80]), ("small", "fp32"), ("even", "bf16"))
    layers = [int(name.split(".")[2]) for name in seen if ".layers." in name]
    assert layers == sorted(layers)
    assert set(layers) == set(range(len(ARCH.pattern)))


def spoil(name: str, value: float) -> Callable[[dict[str, Any]], None]:
    def change(weights: dict[str, Any]) -> None:
        weights[name] = weights[name].copy()
        weights[name].reshape(-1)[:2] = value

    return change


@pytest.mark.parametrize(
    "name",
    [
        "backbone.layers.2.mixer.k_proj.weight",
        "backbone.layers.4.norm.weight",
        "backbone.norm_f.weight",
        "lm_head.weight",
    ],
)
def test_a_nan_is_named_by_its_tensor(
    name: str, own_source: Callable[..., Path], passage_of: Callable[..., Passage]
) -> None:
    spoilt = Checkpoint.open(own_source(spoil(name, math.nan)))
    with pytest.raises(InputError) as error:
        streamed(spoilt, passage_of(TEXT[:80]))
    assert error.value.subject == f"budget full, bf16 weights in fp32, tensor {name}"
    assert error.value.found == "a NaN or an infinity"


def test_what_a_narrow_precision_cannot_compute_is_named_by_layer_budget_and_precision(
    own_source: Callable[..., Path], passage_of: Callable[..., Passage]
) -> None:
    spoilt = Checkpoint.open(own_source(spoil("backbone.layers.1.mixer.up_proj.weight", 60000.0)))
    with pytest.raises(InputError, match=r"budget full, bf16 weights in fp16, layers\.1: expected finite"):
        streamed(spoilt, passage_of(TEXT[:80]), ("full", "fp16"))
    [found] = streamed(spoilt, passage_of(TEXT[:80]), ("full", "bf16"))
    assert math.isfinite(found["nats"])


class Spoilt(Held):
    """The weights of a sub-model with a NaN in the head's matrix."""

    def __init__(self, model: SubModel) -> None:
        weights = {name: model.weights.load(name) for name, _ in model.shapes()}
        weights[HEAD.name] = weights[HEAD.name].copy()
        weights[HEAD.name][3, 2] = math.nan
        super().__init__(weights.items())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("form", ["bf16", "int8"])
def test_of_two_forms_of_a_budget_the_one_with_the_nan_is_named(
    form: str, precision: Precision, checkpoint: Checkpoint, passage_of: Callable[..., Passage]
) -> None:
    [plain], _ = checkpoint_models(checkpoint, "full")
    [rounded] = rounded_models(checkpoint, [plain])
    forms = {"bf16": plain, "int8": rounded}
    subjects: list[Subject] = [(model, "fp32") for model in forms.values()]
    subjects.append((replace(forms[form], weights=Spoilt(forms[form])), precision))
    with pytest.raises(InputError) as error:
        evaluate(subjects, 0, passage_of(TEXT[:80]), Progress())
    assert error.value.subject == f"budget full, {form} weights in {precision}, tensor lm_head.weight"


def test_the_parent_is_a_budget_that_keeps_all_of_it_or_has_a_name_of_its_own(checkpoint: Checkpoint) -> None:
    models, parent = checkpoint_models(checkpoint, "small,full")
    assert [model.name for model in models] == ["full", "small"]
    assert parent is models[0]
    _, parent = checkpoint_models(checkpoint, "small")
    assert parent.name == "full"
    del checkpoint.budgets["full"]
    models, parent = checkpoint_models(checkpoint, "all")
    assert parent.name == PARENT
    assert parent not in models


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_quantised_parent_is_what_its_numbers_are(
    tmp_path: Path, passage_of: Callable[..., Passage], precision: str
) -> None:
    """In float32 the very numbers of the format; in a narrow dtype each of them rounded once."""
    arch = replace(ARCH, hidden_size=32, ffn_sizes=(48,) * 3, mamba_head_dim=16)
    budgets = [Budget.full(arch, "full"), replace(Budget.full(arch, "cut"), hidden_size=16, mamba_heads=(4, 6, 2))]
    names = {"in_proj": "NVFP4", "out_proj": "FP8", "embeddings": "NVFP4", "lm_head": "FP8", "v_proj": "NVFP4"}
    written = write_quantised(
        tmp_path / "quantised", arch, random_weights(arch, np.random.default_rng(3)),
        lambda module: names.get(module.rsplit(".", 1)[-1]), budgets,
    )  # fmt: skip
    write_checkpoint(tmp_path / "plain", arch, written.worth, budgets, precision)
    passage, found = passage_of(TEXT[:200], 32), []
    for folder in (written.folder, tmp_path / "plain"):
        models, _ = checkpoint_models(Checkpoint.open(folder), "all")
        found.append(evaluate([(model, precision) for model in models], 0, passage, Progress()))
    assert found[0] == found[1]
    assert {model.dequantised for model in models} == {False}
