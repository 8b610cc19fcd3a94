"""Greedy ids of a session equal the PyTorch reference's: 200 tokens, every budget, however the prompt was cut."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROMPT = [int(i) for i in np.random.default_rng(4).integers(0, 256, 75)]
COUNT = 200
CUTS = {"large": (64,), "medium": (64,), "small": (64, 7, 1)}

#: Run without torch; prints the ids of every cut.
GREEDY = """
import json, sys
sys.modules["torch"] = None
from elastic_runtime.bundle import Bundle
from elastic_runtime.generate import Settings, generate
from elastic_runtime.open_onnx import open_onnx
from elastic_runtime.session import Session

path, name, count, prompt, cuts = json.loads(sys.argv[1])
bundle, found = Bundle.open(path), []
for cut in cuts:
    with Session(open_onnx(bundle, bundle.budget(name), context=512, max_tokens=cut, threads=1)) as session:
        found.append([piece.id for piece in generate(session, [prompt], Settings(max_new=count))])
loaded = {name.split(".")[0] for name in sys.modules if sys.modules[name] is not None}
assert not loaded & {"torch", "elastic_export", "onnx_ir", "onnxscript", "transformers"}, loaded
print(json.dumps(found))
"""


def _reference(budget: str) -> list[int]:
    """Float32 arithmetic on the same weights."""
    import torch

    from elastic_export.checkpoint.demo import demo_checkpoint
    from elastic_export.checkpoint.reader import Checkpoint
    from elastic_export.reference import budget_masks, empty_state, load_reference

    checkpoint = Checkpoint.open(demo_checkpoint())
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


@pytest.mark.parametrize("budget", ["large", "medium", "small"])
def test_greedy_ids_are_the_references(demo_bundle: Path, budget: str) -> None:
    request = json.dumps([str(demo_bundle), budget, COUNT, PROMPT, CUTS[budget]])
    done = subprocess.run([sys.executable, "-c", GREEDY, request], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wanted = _reference(budget)
    assert len(set(wanted)) > 20  # no fixed point
    for ids in json.loads(done.stdout):
        assert ids == wanted
