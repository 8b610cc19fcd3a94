"""What int8, FP8 and NVFP4 cost the budgets of the trained demo: a table for the README.

    PYTHONPATH=tests:tests/demo python tests/bench/quantised_loss.py [--text FILE] [--tokens 16384]

The text is the held-out part of Python 3.11's standard library unless one is given (tests/demo/demo_text.py). int8 is
what `--quantize int8` stores. FP8 and NVFP4 are checkpoints written here in ModelOpt's layouts by the tests' own
writer, without calibration, and read as `--checkpoint` reads them: every linear layer but the head, as the published
ones. NVFP4 has no `out_proj`: its columns are heads x channels, and budgets that keep 3 of 4 heads of 24 channels, or
16 of a head's 24, cut them inside the blocks of 16 that share a scale, which is refused; it is in FP8 there.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from demo_text import read_corpus

from elastic_export.checkpoint.demo import demo_checkpoint
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.evaluate.counterpart import counterparts, rounded_models
from elastic_export.evaluate.distance import Pair
from elastic_export.evaluate.evaluate import Subject, evaluate
from elastic_export.evaluate.from_checkpoint import checkpoint_models
from elastic_export.evaluate.lost_rows import weight_loss
from elastic_export.evaluate.passage import Passage, read_passage
from elastic_export.evaluate.result import Evaluation, Measured, Reference, Source, evaluation, with_loss
from elastic_export.progress import Progress
from elastic_runtime.text.tokenizer import Tokenizer
from quantised_checkpoint import Kind, write_quantised

_CONTEXT = 257  # as the demo's own figures
_HEADER = "| budget | weights | bits per byte | more | KL, nats a token | same top token | logits off | weights off |"


def fp8(module: str) -> str | None:
    """Every linear layer."""
    return "FP8" if ".mixer." in module else None


def nvfp4(module: str) -> str | None:
    """Every linear layer; see the module on `out_proj`."""
    return "FP8" if module.endswith(".out_proj") else "NVFP4" if ".mixer." in module else None


KINDS: dict[str, Kind] = {"FP8": fp8, "NVFP4": nvfp4}


def main() -> None:
    """Quantise, evaluate all of it in one walk over the layers, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--tokens", type=int, default=16384, help="the first ones are scored")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = given.text or Path(folder, "held_out.txt")
        if given.text is None:
            text.write_text(read_corpus().held_out, encoding="utf-8")
        checkpoint = Checkpoint.open(demo_checkpoint())
        vocab, tokenizer = checkpoint.architecture.vocab_size, Tokenizer(checkpoint.path)
        passage = read_passage(text, tokenizer, vocab=vocab, context=_CONTEXT, tokens=given.tokens)
        print("\n".join(table(measured(checkpoint, passage, Path(folder)))))


def quantised(checkpoint: Checkpoint, folder: Path, kind: Kind) -> Checkpoint:
    """The checkpoint in another format, opened."""
    weights = {name: np.asarray(checkpoint.read(name), np.float32) for name in checkpoint.tensors}
    write_quantised(folder, checkpoint.architecture, weights, kind, list(checkpoint.budgets.values()))
    shutil.copyfile(checkpoint.path / "tokenizer.json", folder / "tokenizer.json")
    return Checkpoint.open(folder)


def measured(checkpoint: Checkpoint, passage: Passage, folder: Path) -> Evaluation:
    """Every budget as it is, and quantised in every way, against the first of them as it is."""
    plain, parent = checkpoint_models(checkpoint, "all")
    ways = [rounded_models(checkpoint, plain)]
    ways += [checkpoint_models(quantised(checkpoint, folder / name, kind), "all")[0] for name, kind in KINDS.items()]
    compared = [each for models in ways for each in counterparts(models, checkpoint)[0]]
    subjects: list[Subject] = [(model, "fp32") for model in (*plain, *(each.quantised for each in compared))]
    pairs = [Pair(len(plain) + number, number % len(plain)) for number in range(len(compared))]
    scores = evaluate(subjects, plain.index(parent), passage, Progress(), pairs=pairs)
    rows = [
        Measured(model.name, model.architecture, precision, score, model.quantisation)
        for (model, precision), score in zip(subjects, scores, strict=True)
    ]
    source, reference = Source("checkpoint", checkpoint.name, checkpoint.dtype), Reference(parent.name, "fp32")
    found = evaluation(source, passage, rows, reference, 16384)
    return with_loss(found, checkpoint.name, pairs, [weight_loss(each) for each in compared])


def table(found: Evaluation) -> Iterator[str]:
    """In Markdown, the ways of a budget below each other."""
    assert found.loss is not None
    lost = {(loss.budget, loss.quantisation): loss for loss in found.loss.text}
    off = {(loss.budget, loss.quantisation): loss.error for loss in found.loss.weights}
    text = found.text
    yield f"{text.tokens:,} tokens of held-out text, {text.bytes:,} bytes, windows of {text.context}:\n"
    yield _HEADER
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for budget in dict.fromkeys(row.budget for row in found.rows):
        for row in (row for row in found.rows if row.budget == budget):
            cells = [row.budget, row.quantisation or found.subject.dtype, f"{row.bits_per_byte:.4f}"]
            if row.quantisation is not None:
                key = row.budget, row.quantisation
                loss = lost[key]
                cells += [f"{loss.bits_per_byte:+.4f}", f"{loss.kl_divergence:.5f}", f"{loss.top1_agreement:.1%}"]
                cells += [f"{loss.logits:.2%}", f"{off[key]:.2%}"]
            yield f"| {' | '.join([*cells, *[''] * (8 - len(cells))])} |"


if __name__ == "__main__":
    main()
