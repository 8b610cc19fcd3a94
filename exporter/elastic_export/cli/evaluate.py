"""`elastic-export evaluate`: what budgets and precisions cost on a text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import click

from elastic_export.checkpoint.budgets import FILE_NAME
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.resolve import resolve_checkpoint
from elastic_export.cli.lenient import lenient_options
from elastic_export.cli.terminal import ConsoleProgress
from elastic_export.cli.whole_file import write_whole
from elastic_export.plan.machine import free_memory
from elastic_export.plan.rates import measure_rates
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from elastic_runtime.fit.vram import check_count
from elastic_runtime.format.interface import PRECISIONS, Precision
from elastic_runtime.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from elastic_export.evaluate.result import Evaluation, Source
    from elastic_export.evaluate.sub_model import SubModel

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("path", metavar="CHECKPOINT|BUNDLE")
@click.option("--text", "text", type=_FILE, required=True, help="What is scored, in UTF-8.")
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
@click.option("--tokenizer", "tokenizer", type=_FILE, metavar="DIR", help="Folder of tokenizer.json, if not PATH.")
@click.option("--budgets", "budgets_file", type=_FILE, help=f"Budget file instead of {FILE_NAME}.")
@click.option("--weights-folder", type=_FILE, help="Where the shards of a bundle with external weights are.")
@click.option("--max-context", type=int, default=16384, show_default=True, help="Tokens that VRAM is reckoned for.")
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Write the result there, as JSON.")
@click.option("--plot", "plot_file", type=_FILE, metavar="FILE.svg", help="Write a picture of it there.")
@click.option("--allow-short", is_flag=True, help="Begin even where memory looks too short.")
@lenient_options
def evaluate(path: str, **options: Any) -> None:  # fmt: skip
    """Score a text with the budgets of a checkpoint, or of a bundle, in several precisions.

    Bits per byte and perplexity of the text; KL divergence from and agreement on the most likely token with the parent
    in fp32 (of a bundle: with its largest budget). Weights are read a layer at a time, once for all budgets. How well a
    model reasons is not measured.
    """
    progress = ConsoleProgress()
    precisions = _precisions(options["precision"])
    check_count("--max-context", options["max_context"])
    for option in ("json_file", "plot_file"):
        check_output(options[option])
    check_apart({"--text": options["text"], "--json": options["json_file"], "--plot": options["plot_file"]})
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
    from elastic_export.evaluate.passage import read_passage  # noqa: PLC0415
    from elastic_export.evaluate.result import Measured, Reference, evaluation  # noqa: PLC0415

    bundled = (path / "manifest.json").is_file()
    opened = _opened_bundle(path, precisions, options) if bundled else _opened_checkpoint(path, options, progress)
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
    subjects = [(model, precision) for model in opened.models for precision in precisions]
    reference: tuple[SubModel, Precision] = (parent, "fp32")
    if reference not in subjects:
        subjects.insert(0, reference)
    cost, memory = evaluation_cost(subjects, passage), free_memory()
    progress.say(cost_text(cost, measure_rates(opened.shard), memory))
    if not options["allow_short"]:
        check_memory(cost, memory)
    total = sum(weight_bytes(model) for model, _ in subjects)
    scores = run(subjects, subjects.index(reference), passage, progress, total)
    rows = [
        Measured(model.name, model.architecture, precision, score, model.quantisation)
        for (model, precision), score in zip(subjects, scores, strict=True)
    ]
    return evaluation(opened.source, passage, rows, Reference(parent.name, "fp32"), options["max_context"])


class _Opened(NamedTuple):
    """Whose weights, the tokenizer's folder, what to evaluate, what to compare with, a file to time reading with."""

    source: Source
    folder: Path
    models: list[SubModel]
    parent: SubModel
    shard: Path | None


def _opened_bundle(path: Path, precisions: list[Precision], options: dict[str, Any]) -> _Opened:
    from elastic_export.evaluate.from_bundle import bundle_models  # noqa: PLC0415
    from elastic_export.evaluate.result import Source  # noqa: PLC0415

    _refuse(options, ("budgets_file", "ignore_tensors", "ignore_config"), f"{path} is a bundle")
    bundle = Bundle.open(path, external=options["weights_folder"])
    manifest = bundle.manifest
    if wrong := [p for p in precisions if p not in ("fp32", manifest.precision)]:
        expected = " or ".join(dict.fromkeys(("fp32", manifest.precision)))
        found, todo = f"{wrong[0]}, which the bundle does not ship", "evaluate the checkpoint in it"
        raise InputError("--precision", expected=expected, found=found, todo=todo)
    models, largest = bundle_models(bundle, options["budget"])
    return _Opened(Source("bundle", manifest.checkpoint.name, manifest.precision), path, models, largest, None)


def _opened_checkpoint(path: Path, options: dict[str, Any], progress: ConsoleProgress) -> _Opened:
    from elastic_export.evaluate.from_checkpoint import checkpoint_models  # noqa: PLC0415
    from elastic_export.evaluate.result import Source  # noqa: PLC0415

    _refuse(options, ("weights_folder",), f"{path} is no bundle")
    folder = resolve_checkpoint(str(path), os.environ, subject=str(path))
    assert folder is not None  # a path was given
    asked = options["budgets_file"] is not None or options["budget"] != "all" or (folder / FILE_NAME).exists()
    checkpoint = Checkpoint.open(
        folder,
        budgets_file=options["budgets_file"],
        ignore_tensors=options["ignore_tensors"],
        ignore_config=options["ignore_config"],
        require_budgets=asked,
    )
    progress.say_all(checkpoint.warnings)
    if not asked:
        progress.say(f"{folder}: no {FILE_NAME}, so that the parent alone is evaluated")
    models, parent = checkpoint_models(checkpoint, options["budget"])
    source = Source("checkpoint", checkpoint.name, checkpoint.dtype)
    return _Opened(source, folder, models, parent, min(checkpoint.shards))


def _refuse(options: dict[str, Any], names: Sequence[str], why: str) -> None:
    """Options that would say nothing."""
    for name in names:
        if options[name]:
            option = "--" + name.removesuffix("_file").replace("_", "-")
            raise InputError(option, expected="no such option", found=f"it, but {why}", todo="leave it out")


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


def check_apart(files: dict[str, Path | None]) -> None:
    """Whether each is a file of its own, or no plain file: what one writes the other would lose."""
    places: dict[str, str] = {}
    for option, file in files.items():
        if file is None or (file.exists() and not file.is_file()):
            continue
        first = places.setdefault(os.path.realpath(file), option)
        if first != option:
            raise InputError(option, expected=f"another file than {first}", found=str(file), todo="name another file")
