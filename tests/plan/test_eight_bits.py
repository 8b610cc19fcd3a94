"""What `--quantize int8` does not go with is refused by name, before anything is built; odd matrices are told of."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.layers.budget import Budget
from elastic_export.plan.eight_bits import goes_with_int8, parent_bytes, weight_bytes
from elastic_export.plan.job import ExportJob, ExportOptions, plan_job
from elastic_runtime.errors import InputError
from elastic_runtime.fit.targets import select_targets
from small_export import ARCH
from synthetic import write_checkpoint


def opened(folder: Path, dtype: str = "bf16", **widths: Any) -> Checkpoint:
    arch = replace(ARCH, **({"vocab_size": 98} | widths))
    write_checkpoint(folder, arch, random_weights(arch, np.random.default_rng(5)), [Budget.full(arch, "full")], dtype)
    return Checkpoint.open(folder)


def plan(checkpoint: Checkpoint, targets: str = "rtx5080", **options: Any) -> ExportJob:
    sizes: dict[str, Any] = {"max_contexts": (64,), "max_tokens": 16, "quantise": "int8"}
    return plan_job(checkpoint, ExportOptions("all", targets, Path("out"), **(sizes | options)), demo=False)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"precision": "fp16"}, r"expected --precision bf16, found fp16, in which a product .* can pass 65504"),
        ({"precision": "fp32"}, r"expected --precision bf16, found fp32, with which TensorRT-RTX joins no int8 weight"),
        ({"weights": "sliced"}, r"expected --weights shared, found --weights sliced"),
        ({"weights": "embedded"}, r"expected --weights shared, found --weights embedded"),
        ({"external_weights": True}, r"expected the quantised file in the bundle, found --external-weights"),
        ({"targets": "sm75:11GiB:616GBps"}, r"expected targets of .* 8.0 or newer, found sm75-11gib-616gbps with 7.5,"),
    ],
)
def test_what_it_does_not_go_with(tmp_path: Path, options: dict[str, Any], text: str) -> None:
    checkpoint = opened(tmp_path)
    with pytest.raises(InputError, match=r"^--quantize int8: " + text):
        plan(checkpoint, **options)


def test_a_checkpoint_in_fp16_is_quantised_for_bf16_activations(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, "fp16")
    assert plan(checkpoint, precision="bf16").eight_bits is not None
    with pytest.raises(InputError, match=r"^--quantize int8: expected --precision bf16"):
        plan(checkpoint)


def test_odd_matrices_are_told_of(tmp_path: Path) -> None:
    job = plan(opened(tmp_path, vocab_size=97, ffn_sizes=(71,)))
    [note] = [note for note in job.said if "--quantize" in note]
    assert note.startswith("--quantize int8: backbone.layers.2.mixer.up_proj.weight, backbone.layers.2.mixer.down_proj")
    assert "lm_head.weight stay in bf16: of odd sizes in the parent or in a budget" in note
    assert not [note for note in plan(opened(tmp_path / "even")).said if "--quantize" in note]


def test_a_parent_of_odd_matrices_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--quantize int8: expected linear layers of even sizes, found odd ones"):
        plan(opened(tmp_path, hidden_size=47))


def test_bytes_of_a_budget_are_those_of_its_arrays(tmp_path: Path) -> None:
    """A byte an element and four a row of what is quantised, two of what is not."""
    checkpoint = opened(tmp_path, vocab_size=97)
    job, shapes = plan(checkpoint), checkpoint.architecture.tensor_shapes()
    assert job.eight_bits is not None
    names = [name for name, shape in shapes.items() if len(shape) == 2 and name != "lm_head.weight"]
    expected = sum(math.prod(shapes[n]) + 4 * shapes[n][0] for n in names)
    expected += sum(2 * math.prod(shape) for name, shape in shapes.items() if name not in names)
    assert weight_bytes(checkpoint, job.budgets[0], "bf16", job.eight_bits) == expected
    assert parent_bytes(checkpoint, "bf16", job.eight_bits) == expected
    assert job.sizes[0].weight_bytes == expected


def test_whether_it_could_be_had(tmp_path: Path) -> None:
    checkpoint, targets = opened(tmp_path), select_targets("rtx5080")
    assert goes_with_int8(checkpoint, "bf16", "shared", targets)
    assert not goes_with_int8(checkpoint, "fp16", "shared", targets)
