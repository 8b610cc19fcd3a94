"""Greedy ids equal the PyTorch reference's, without torch: every budget, 200 tokens, and however the prompt was cut."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.xdist_group("reference ids")  # one worker makes each budget's once
BUDGETS = ["large", "medium", "small"]
PROMPT = [int(i) for i in np.random.default_rng(4).integers(0, 256, 75)]
COUNT = 200
#: After another cut of the prompt: a state that it made wrong tells from the first token on.
AFTER_A_CUT = 50

#: max_tokens of the session, the lengths in which the prompt is handed over (what is left follows in one piece), and
#: how many ids are asked for.
CUTS: list[tuple[int, list[int], int]] = [
    (128, [], COUNT),  # whole, in one call
    (64, [], AFTER_A_CUT),  # 64 and 11
    (64, [1], AFTER_A_CUT),  # 1 and the rest
    (64, [7] * 10, AFTER_A_CUT),  # tens of calls from outside,
    (7, [], AFTER_A_CUT),  # the same from inside
    (1, [], COUNT),  # token by token
    (16, [3, 40], AFTER_A_CUT),  # cut outside and inside, at different places
]

#: Prints the ids of every cut.
GREEDY = """
import json, sys
from elastic_runtime.bundle import Bundle
from elastic_runtime.generation import Settings, generate
from elastic_runtime.ort.open_onnx import open_onnx
from elastic_runtime.session import Session

path, name, prompt, cuts = json.loads(sys.argv[1])
bundle, found = Bundle.open(path), []
for max_tokens, lengths, count in cuts:
    with Session(open_onnx(bundle, bundle.budget(name), context=512, max_tokens=max_tokens, threads=1)) as session:
        left = prompt
        for length in lengths:
            session.prefill([left[:length]])
            left = left[length:]
        found.append([piece.id for piece in generate(session, [left], Settings(max_new=count))])
print(json.dumps(found))
"""

#: Python imports a module of this name before anything else.
SITECUSTOMIZE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "elastic_export", "onnx_ir", "onnxscript", "transformers"}:
            raise ImportError(f"{name} is refused here")

sys.meta_path.insert(0, Refuse())
"""


@functools.cache
def _reference(budget: str) -> list[int]:
    """Float32 arithmetic on the same weights, the prompt in one call."""
    import torch

    from elastic_export.checkpoint.reader import Checkpoint
    from elastic_export.reference import budget_masks, empty_state
    from masked_parent import load_reference
    from random_demo import random_demo

    checkpoint = Checkpoint.open(random_demo())
    parent = checkpoint.architecture
    model = load_reference(parent, checkpoint.read, prefix=checkpoint.prefix)
    masks = budget_masks(parent, checkpoint.budgets[budget])
    state, fed, position, ids = empty_state(parent, 1, 512, torch.float32), PROMPT, 0, list[int]()
    torch.set_num_threads(1)  # small matrices: threads only wait for one another
    with torch.inference_mode():
        while len(ids) < COUNT:
            tokens, at = torch.tensor([fed]), torch.tensor([position])
            logits, state = model(tokens, at, torch.tensor([len(fed)]), state, masks)
            position += len(fed)
            fed = [int(logits.reshape(-1, parent.vocab_size)[-1].argmax())]
            ids += fed
    return ids


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process in which neither torch nor the exporter can be imported."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE, "utf-8")
    engines = Path(__file__).parents[2] / "engines"
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(engines), os.environ.get("PYTHONPATH", "")])}


def _python(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )


@pytest.mark.parametrize("package", ["torch", "elastic_export"])
def test_the_process_really_lacks_them(without_torch: dict[str, str], package: str) -> None:
    done = _python(without_torch, "-c", f"import {package}")
    assert done.returncode != 0
    assert f"{package} is refused here" in done.stderr


@pytest.mark.parametrize("budget", BUDGETS)
def test_greedy_ids_are_the_references(demo_bundle: Path, without_torch: dict[str, str], budget: str) -> None:
    request = json.dumps([str(demo_bundle), budget, PROMPT, CUTS])
    done = _python(without_torch, "-c", GREEDY, request)
    assert done.returncode == 0, done.stderr
    wanted = _reference(budget)
    assert len(set(wanted)) > 20  # no fixed point
    for cut, ids in zip(CUTS, json.loads(done.stdout), strict=True):
        assert ids == wanted[: cut[2]], cut


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_program_prints_the_references_ids(demo_bundle: Path, without_torch: dict[str, str], budget: str) -> None:
    request = ("--budget", budget, "--ids", ",".join(map(str, PROMPT)), "--max-new", str(COUNT), "--ignore-eos")
    program = ("-m", "elastic_runtime.cli.run", str(demo_bundle), "--backend", "onnxruntime", "--threads", "1")
    done = _python(without_torch, *program, *request)
    assert done.returncode == 0, done.stderr
    assert [int(word) for word in done.stdout.split()] == _reference(budget)


def test_the_budgets_answers_differ() -> None:
    assert len({tuple(_reference(budget)) for budget in BUDGETS}) == len(BUDGETS)
