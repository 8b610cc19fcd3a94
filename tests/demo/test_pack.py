"""A packed model is a checkpoint of the product: opened, its text tried, its numbers those that were trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from demo_text import encoded, train_tokenizer
from pack import read_tokenizer, write_trained
from sub_model import SubModel, initial_parameters

from elastic_export.checkpoint.budgets import budget_document
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.layers.budget import Budget
from elastic_export.plan.text import check_text
from elastic_export.reference.masks import budget_masks
from elastic_export.reference.model import ElasticModel
from elastic_export.reference.state import empty_state
from elastic_runtime.text.tokenizer import Tokenizer
from small_export import ARCH, SMALL

SOURCE = "\n".join(f"def f{n}(x):\n    return x + {n}  # é" for n in range(300))


def test_the_packed_model_is_the_trained_one(tmp_path: Path) -> None:
    arch = replace(ARCH, vocab_size=300)
    parameters, made = initial_parameters(arch, 3), train_tokenizer(SOURCE, 300)
    made.save(str(tmp_path / "bpe.json"))
    budgets = {"full": {}, "small": budget_document(arch, SMALL)}
    tokenizer = read_tokenizer(tmp_path / "bpe.json")
    folder = write_trained(tmp_path / "packed", arch, parameters, budgets, tokenizer, "# A card\n")

    checkpoint = Checkpoint.open(folder)
    assert not checkpoint.warnings
    assert checkpoint.budgets == {"full": Budget.full(arch, "full"), "small": SMALL}
    assert not check_text(checkpoint)
    own = Tokenizer(folder)
    assert own.decode(own.encode(SOURCE)) == SOURCE
    assert own.encode("<|end|>")[-1] in own.stop_ids()
    ids = torch.from_numpy(encoded(made, SOURCE)[:64].astype(np.int64))[None]
    rounded = {name: tensor.bfloat16().float() for name, tensor in parameters.items()}
    model = ElasticModel(arch, every_token=True)
    model.load_state_dict({name: torch.from_numpy(checkpoint.read(name).astype(np.float32)) for name in rounded})
    state, at, length = empty_state(arch, 1, 64, torch.float32), torch.tensor([0]), torch.tensor([64])
    wanted = model(ids, at, length, state, budget_masks(arch, SMALL))[0]
    found = SubModel(arch, SMALL)(rounded, ids)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
