"""`elastic-export evaluate`: what budgets and precisions cost on a text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from elastic_export.checkpoint.budgets import FILE_NAME
from elastic_export.cli.evaluated import opened_path, subjects_of
from elastic_export.cli.lenient import lenient_options
from elastic_export.cli.terminal import ConsoleProgress
from elastic_export.cli.whole_file import check_outside, write_whole
from elastic_export.plan.machine import free_memory
from elastic_export.plan.rates import measure_rates
from elastic_runtime.errors import InputError
from elastic_runtime.fit.vram import check_count
from elastic_runtime.format.interface import PRECISIONS, Precision
from elastic_runtime.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from elastic_export.evaluate.result import Evaluation

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("path", metavar="CHECKPOINT|BUNDLE")
@click.option("--text", "text", type=_FILE, required=True, help="The text that is scored, in UTF-8.")
@click.option("--budget", default="all", show_default=True, metavar="all|NAME,…", help="Sub-models to evaluate.")
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    metavar="NAME,…",
    help=f"Of {', '.join(PRECISIONS)}: fp32 computes the stored weights in float32; bf16 and fp16 round "
    "weights and what is kept between ops as engines do.",
)
@click.option("--context", type=int, default=1024, show_default=True, help="Tokens of a window.")
@click.option("--stride", type=int, help="Tokens from window to window.  [default: each token is in one]")
@click.option("--tokens", type=int, help="Score at most so many, the first ones.  [default: all]")
@click.option("--against", type=_FILE, metavar="CHECKPOINT",
              help="Say what quantising lost, by layer, at the logits, and in which rows most, against this one, "
              "which CHECKPOINT or BUNDLE was quantised from.")  # fmt: skip
@click.option("--quantize", type=click.Choice(["int8"]),
              help="The same before an export: the checkpoint's weights rounded as it would round them.")  # fmt: skip
@click.option(
    "--tokenizer",
    "tokenizer",
    type=_FILE,
    metavar="DIR",
    help="Folder of tokenizer.json.  [default: CHECKPOINT or BUNDLE]",
)
@click.option("--budgets", "budgets_file", type=_FILE, help=f"Budget file instead of {FILE_NAME}.")
@click.option("--weights-folder", type=_FILE, help="Where the shards of a bundle with external weights are.")
@click.option("--max-context", type=int, default=16384, show_default=True, help="Tokens that VRAM is reckoned for.")
@click.option(
    "--json", "json_file", type=_FILE, metavar="FILE", help="Write the result there, as elastic-evaluation/1."
)
@click.option("--plot", "plot_file", type=_FILE, metavar="FILE.svg", help="Write a picture of it there.")
@click.option("--allow-short", is_flag=True, help="Begin even where memory looks too short, which is an estimate.")
@lenient_options
def evaluate(path: str, **options: Any) -> None:  # fmt: skip
    """Score a text with the budgets of a checkpoint or bundle.

    In every precision that is named: bits per byte and perplexity of the text; KL divergence, in nats a token, from the
    parent in fp32 (of a bundle: from its largest budget), and how often both find the same token most likely. Weights
    are read a layer at a time, once for all budgets. How well a model reasons is not measured.
    """
    progress = ConsoleProgress()
    precisions = _precisions(options["precision"])
    check_count("--max-context", options["max_context"])
    for option in ("json_file", "plot_file"):
        check_output(options[option])
        check_outside(f"--{option.removesuffix('_file')}", options[option], Path(path))
    check_apart({"--text": options["text"], "--json": options["json_file"], "--plot": options["plot_file"]})
    _check_picture(options["plot_file"])
    found = _evaluation(Path(path), precisions, options, progress)
    click.echo(found.table())
    if options["json_file"] is not None:
        write_whole(options["json_file"], found.to_json(), "--json")
    if options["plot_file"] is not None:
        from elastic_export.evaluate.plot import plot  # noqa: PLC0415  # only who wants one

        write_whole(options["plot_file"], plot(found), "--plot")


def _evaluation(
    path: Path, precisions: list[Precision], options: dict[str, Any], progress: ConsoleProgress
) -> Evaluation:
    # torch takes seconds to import; a request at fault is told at once
    from elastic_export.evaluate.cost import check_memory, cost_text, evaluation_cost, weight_bytes  # noqa: PLC0415
    from elastic_export.evaluate.evaluate import evaluate as run  # noqa: PLC0415
    from elastic_export.evaluate.lost_rows import weight_loss  # noqa: PLC0415
    from elastic_export.evaluate.passage import read_passage  # noqa: PLC0415
    from elastic_export.evaluate.result import Measured, Reference, evaluation, with_loss  # noqa: PLC0415

    opened = opened_path(path, precisions, options, progress)
    parent = opened.parent
    passage = read_passage(
        options["text"],
        tokenizer_of(options["tokenizer"] or opened.folder),
        vocab=parent.architecture.vocab_size,
        context=options["context"],
        stride=options["stride"],
        tokens=options["tokens"],
    )
    progress.say_all(passage.notes)
    subjects, reference, pairs = subjects_of(opened, precisions)
    cost, memory = evaluation_cost(subjects, passage, paired=bool(pairs)), free_memory()
    progress.say(cost_text(cost, measure_rates(opened.shard), memory))
    if not options["allow_short"]:
        check_memory(cost, memory)
    total = sum(weight_bytes(model) for model, _ in subjects)
    scores = run(subjects, reference, passage, progress, total, pairs=pairs)
    rows = [
        Measured(model.name, model.architecture, precision, score, model.quantisation, opened.source_of(model))
        for (model, precision), score in zip(subjects, scores, strict=True)
    ]
    compared_with = Reference(parent.name, "fp32", None if parent.quantisation is None else parent.quantisation.name)
    found = evaluation(opened.source, passage, rows, compared_with, options["max_context"])
    if opened.against is None:
        return found
    with progress.step("rows"):  # last: what is not finite has been told by then
        weights = [weight_loss(each) for each in opened.compared]
    return with_loss(found, opened.against.name, pairs, weights)


def _precisions(text: str) -> list[Precision]:
    names = [name.strip() for name in text.split(",")]
    for index, name in enumerate(names):
        if name not in PRECISIONS or name in names[:index]:
            expected = f"of {', '.join(PRECISIONS)}, each once"
            raise InputError("--precision", expected=expected, found=repr(text), todo="write fp32,bf16")
    return cast("list[Precision]", names)


def tokenizer_of(folder: Path) -> Tokenizer:
    """The tokenizer of a folder. Raises InputError: there is none."""
    if not (folder / "tokenizer.json").is_file():
        todo = "name the folder of the model's with --tokenizer"
        raise InputError(str(folder), expected="tokenizer.json", found="no such file", todo=todo)
    return Tokenizer(folder)


def check_output(file: Path | None) -> None:
    """Told before minutes of work rather than after."""
    if file is None:
        return
    folder = file.absolute().parent
    found = "a folder" if file.is_dir() else "" if folder.is_dir() else "no such folder"
    if not found and not os.access(file if file.exists() else folder, os.W_OK):
        found = "one that may not be written"
    if found:
        raise InputError(str(file), expected="a file in a folder that exists", found=found, todo="name another file")


def _check_picture(file: Path | None) -> None:
    """Programs go by a picture's name; a pipe or a device has whichever it has."""
    if file is None or file.suffix.lower() == ".svg" or (file.exists() and not file.is_file()):
        return
    expected = "a name that ends in .svg, as the picture is one"
    raise InputError("--plot", expected=expected, found=str(file), todo=f"name {file.with_suffix('.svg')}")


def check_apart(files: dict[str, Path | None]) -> None:
    """Whether each is a file of its own, or no plain file: what one writes the other would lose."""
    places: dict[str, str] = {}
    for option, file in files.items():
        if file is None or (file.exists() and not file.is_file()):
            continue
        first = places.setdefault(os.path.realpath(file), option)
        if first != option:
            raise InputError(option, expected=f"another file than {first}", found=str(file), todo="name another file")
