"""Training of the demo, stage by stage; each resumes from its folder and may be cut by `--minutes`.

    python tests/demo/train_demo.py FOLDER text              the text as tokens, their tokenizer
    python tests/demo/train_demo.py FOLDER full              one model
    python tests/demo/train_demo.py FOLDER sort              its axes by importance; the layers to leave out
    python tests/demo/train_demo.py FOLDER elastic           the three budgets in it, by distillation from it
    python tests/demo/train_demo.py FOLDER alone             the smallest budget as a model of its own, to compare with

The step is the clock: batches, learning rates and budgets follow its number, so a run that was stopped and one that
was not end in the same parameters, on one machine with one number of threads.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from demo_text import VOCABULARY, Tokens, encoded, read_corpus, train_tokenizer
from importance import layers_by_loss, orders, permuted
from pack import read_tokenizer, write_trained
from recorded import Loss, Recorded
from sub_model import SubModel, initial_parameters
from torch import Tensor
from training import TOKENS, Batches, Run, Training, bits_per_byte, elastic_loss, language_loss, stage_of

from elastic_export.checkpoint.budgets import parse_budgets
from elastic_export.checkpoint.demo import SUMS
from elastic_export.layers.budget import Budget
from elastic_export.ops.mamba2_mixer import chunked
from random_demo import ARCHITECTURE

ARCH = replace(ARCHITECTURE, vocab_size=VOCABULARY, ffn_sizes=(576,) * 5, mamba_head_dim=24)

#: Of a folder: what `measure` found.
MEASURED = "bits_per_byte.json"

RUNS = {
    "full": Run(steps=1500, muon=0.02, adamw=3e-3, seed=1),
    "elastic": Run(steps=1300, muon=0.012, adamw=2e-3, seed=2, warm=0.03),
    "alone": Run(steps=1500, muon=0.02, adamw=3e-3, seed=3),
}


def budgets_document(gone: list[int]) -> dict[str, Any]:
    """The demo's budgets: hidden channels are dear, neurons and layers cheap. `gone`: layers, least missed first."""
    return {
        "large": {},
        "medium": {
            "hidden_size": 160,
            "intermediate_size": 448,
            "mamba_num_heads": 12,
            "skip_layers": sorted(gone[:1]),
        },
        "small": {
            "hidden_size": 112,
            "intermediate_size": [256, 224, 224, 224, 288],
            "mamba_num_heads": [12, 8, 8, 8, 8],
            "mamba_head_dim": 16,
            "num_attention_heads": 4,
            "skip_layers": sorted(gone[:3]),
        },
    }


@dataclass(frozen=True)
class Place:
    """Where files lie and sums are made."""

    folder: Path
    device: str = "cpu"

    def read(self, name: str) -> dict[str, Tensor]:
        """The parameters in a file of a stage."""
        state = torch.load(self.folder / name, self.device, weights_only=True)
        parameters: dict[str, Tensor] = state.get("parameters", state)
        return parameters

    def batches(self, seed: int) -> Batches:
        """Of the training text."""
        return Batches(read_tokens(self.folder, "training"), seed, self.device)


def read_budgets(folder: Path) -> list[Budget]:
    """The budgets that `sort` wrote, from the largest to the smallest."""
    document = {"format": "elastic-budgets/1", "budgets": json.loads((folder / "budgets.json").read_text())}
    return list(parse_budgets(document, ARCH, "budgets.json")[0].values())


@click.group()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.pass_context
def main(context: click.Context, folder: Path, threads: int, device: str) -> None:
    """Train the demo in FOLDER."""
    torch.set_flush_denormal(True)  # states decay into denormals, with which steps are many times slower
    torch.set_num_threads(threads)
    if device == "cuda":
        chunked.CHUNK = 128  # launches are dear and products cheap: fewer chunks
    folder.mkdir(parents=True, exist_ok=True)
    context.obj = Place(folder, device)


@main.command()
@click.pass_obj
def text(place: Place) -> None:
    """The text as tokens, and their tokenizer."""
    folder = place.folder
    corpus = read_corpus()
    tokenizer = train_tokenizer(corpus.training)
    tokenizer.save(str(folder / "bpe.json"))
    for name in ("training", "held_out"):
        encoded(tokenizer, getattr(corpus, name)).tofile(folder / f"{name}.u16")
    (folder / "held_out.txt").write_text(corpus.held_out, "utf-8")
    said = {
        "training_bytes": len(corpus.training.encode()),
        "held_out_bytes": len(corpus.held_out.encode()),
        "sha256": corpus.digest,
    }
    (folder / "corpus.json").write_text(json.dumps(said, indent=1))
    click.echo(json.dumps(said))


def read_tokens(folder: Path, name: str) -> Tokens:
    """Of the "training" or the "held_out" text [N]."""
    return np.fromfile(folder / f"{name}.u16", np.uint16)


_MINUTES = click.option("--minutes", type=float, default=math.inf, help="Stop after so long; the next call goes on.")
_STEPS = click.option("--steps", type=int, help="Another number of steps than the recipe's.")


def _run(name: str, steps: int | None) -> Run:
    return replace(RUNS[name], steps=steps or RUNS[name].steps)


@main.command()
@_MINUTES
@_STEPS
@click.pass_obj
def full(place: Place, minutes: float, steps: int | None) -> None:
    """One model of the parent's size."""
    run = _run("full", steps)
    training = Training(place.folder / "full.pt", run, initial_parameters(ARCH, run.seed), place.device)
    _train(place, training, language_loss(SubModel(ARCH)), minutes)


@main.command()
@click.pass_obj
def sort(place: Place) -> None:
    """The full model's axes by importance, and the layers to leave out."""
    parameters, batches = place.read("full.pt"), place.batches(seed=99)
    ids = [batches(step)[:, :-1] for step in range(4)]
    order = orders(ARCH, parameters, ids)
    ranked = permuted(ARCH, {name: tensor.cpu() for name, tensor in parameters.items()}, order)
    torch.save(ranked, place.folder / "sorted.pt")
    gone = layers_by_loss(ARCH, place.read("sorted.pt"), ids[0], 3)
    (place.folder / "budgets.json").write_text(json.dumps(budgets_document([layer for layer, _ in gone]), indent=1))
    click.echo(f"layers least missed: {gone}")


@main.command()
@_MINUTES
@_STEPS
@click.pass_obj
def elastic(place: Place, minutes: float, steps: int | None) -> None:
    """All budgets in one model."""
    run, teacher = _run("elastic", steps), place.read("sorted.pt")
    training = Training(place.folder / "elastic.pt", run, teacher, place.device)
    loss = elastic_loss(ARCH, teacher, read_budgets(place.folder), run)
    _train(place, training, loss, minutes, lambda step: stage_of(run, step))


@main.command()
@_MINUTES
@_STEPS
@click.pass_obj
def alone(place: Place, minutes: float, steps: int | None) -> None:
    """The smallest budget's model, trained alone."""
    run, arch = _run("alone", steps), read_budgets(place.folder)[-1].architecture(ARCH)
    training = Training(place.folder / "alone.pt", run, initial_parameters(arch, run.seed), place.device)
    _train(place, training, language_loss(SubModel(arch)), minutes)


def _train(
    place: Place, training: Training, loss: Loss, minutes: float, stage: Callable[[int], int] = lambda _: 0
) -> None:
    if place.device == "cuda":
        loss = Recorded(loss, stage)
    done = training.go_on(loss, place.batches(training.run.seed), minutes)
    left = "done" if done else "call again"
    click.echo(f"step {training.step} of {training.run.steps}, {training.minutes:.1f} minutes: {left}")


@main.command()
@click.pass_obj
def measure(place: Place) -> None:
    """Bits per byte of the held-out text: before and after elastic training, and of the model trained alone."""
    rows = held_out_bits(place)
    (place.folder / MEASURED).write_text(json.dumps(rows, indent=1))
    for name, found in rows.items():
        click.echo(f"{name:32} {found:.4f}")


def held_out_bits(place: Place) -> dict[str, float]:
    """Bits per byte of the held-out text, by what was measured; of what is there."""
    folder, rows = place.folder, dict[str, float]()
    tokens, size = read_tokens(folder, "held_out"), os.path.getsize(folder / "held_out.txt")
    for name, file in (("full model's slice", "sorted.pt"), ("elastic", "elastic.pt")):
        if (folder / file).exists():
            parameters = place.read(file)
            for budget in read_budgets(folder):
                rows[f"{budget.name}, {name}"] = bits_per_byte(SubModel(ARCH, budget), parameters, tokens, size)
    if (folder / "alone.pt").exists():
        arch = read_budgets(folder)[-1].architecture(ARCH)
        rows["small, trained alone"] = bits_per_byte(SubModel(arch), place.read("alone.pt"), tokens, size)
    return rows


@main.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--made", default="", help="For the card: steps, minutes, on what machine. A whole sentence.")
@click.pass_obj
def pack(place: Place, output: Path, made: str) -> None:
    """The elastic model as a checkpoint in a new folder OUTPUT, with what it is and what `measure` found."""
    if output.exists():
        raise click.ClickException(f"{output} is there: name a new folder")
    folder, parameters = place.folder, Place(place.folder).read("elastic.pt")
    measured = json.loads((folder / MEASURED).read_text())
    said: dict[str, Any] = {"vocabulary": VOCABULARY, "tokens": TOKENS, "bytes": f"{_trained_bytes(folder):,}"}
    said["made"] = made
    for budget in read_budgets(folder):
        said[f"{budget.name}_parameters"] = f"{budget.architecture(ARCH).parameters():,}"
        said[f"{budget.name}_bits"] = f"{measured[f'{budget.name}, elastic']:.3f}"
    card = (Path(__file__).parent / "model_card.md").read_text("utf-8").format(**said)
    budgets = json.loads((folder / "budgets.json").read_text())
    write_trained(output, ARCH, parameters, budgets, read_tokenizer(folder / "bpe.json"), card)
    click.echo(f"DIGEST of checkpoint/demo.py: {hashlib.sha256((output / SUMS).read_bytes()).hexdigest()}")


def _trained_bytes(folder: Path) -> int:
    return int(json.loads((folder / "corpus.json").read_text())["training_bytes"])


if __name__ == "__main__":
    main()
