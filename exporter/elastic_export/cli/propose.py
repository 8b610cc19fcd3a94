"""`elastic-export budgets propose`: budgets that hit a size, by what cuts cost on a text."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from elastic_export.checkpoint.alignment import check_any_column
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.resolve import resolve_checkpoint
from elastic_export.cli.evaluate import check_apart, check_output, tokenizer_of
from elastic_export.cli.lenient import lenient_options
from elastic_export.cli.terminal import ConsoleProgress
from elastic_export.cli.whole_file import write_whole
from elastic_export.plan.eight_bits import check_even
from elastic_export.plan.limits import MAX_TOKENS, check_limits
from elastic_export.plan.machine import free_memory
from elastic_export.plan.rates import measure_rates
from elastic_runtime.errors import InputError
from elastic_runtime.fit.vram import check_count
from elastic_runtime.format.interface import PRECISIONS, Precision

if TYPE_CHECKING:
    from elastic_export.evaluate.passage import Passage
    from elastic_export.propose.propose import Request

_FILE = click.Path(path_type=Path)


@click.command()
@click.option(
    "--checkpoint",
    metavar="DIR|REPO",
    help="Elastic checkpoint: a folder, or a cached Hugging Face id.  [default: $ELASTIC_CHECKPOINT]",
)
@click.option(
    "--params", metavar="SIZE,…", help="Parameters of each budget, such as 9B,6B. This or --vram is required."
)
@click.option("--vram", metavar="SIZE,…", help="Or the VRAM of each at --max-context, such as 16GiB,12GiB.")
@click.option(
    "--names", metavar="NAME,…", help="Names of the budgets, in the order of their sizes.  [default: the sizes]"
)
@click.option(
    "--text",
    "text",
    type=_FILE,
    metavar="FILE",
    help="What cuts are measured on, in UTF-8: some pages of what the model will write about.  [required]",
)
@click.option("-o", "--output", type=_FILE, required=True, metavar="FILE", help="The budget file.")
@click.option("--max-context", type=int, default=16384, show_default=True, help="Tokens that VRAM is reckoned for.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="With --vram: what engines compute in.  [default: the checkpoint's]",
)
@click.option(
    "--quantize",
    type=click.Choice(["none", "int8"]),
    default="none",
    show_default=True,
    help="With --vram: int8 for engines with weights in eight bits.",
)
@click.option(
    "--search-tokens", type=int, help="Tokens that budgets are compared on.  [default: 1024; above 1B parameters 192]"
)
@click.option(
    "--tokens",
    type=int,
    default=1024,
    show_default=True,
    help="Tokens for the loss that the file tells of those found.",
)
@click.option("--context", type=int, default=1024, show_default=True, help="Tokens of a window.")
@click.option(
    "--rounds",
    type=int,
    help="Walks over the weights for each budget: more find better ones.  [default: 8; above 1B parameters 2]",
)
@click.option(
    "--tokenizer", "tokenizer", type=_FILE, metavar="DIR", help="Folder of tokenizer.json.  [default: the checkpoint]"
)
@click.option("--force", is_flag=True, help="Replace an --output that exists.")
@click.option("--allow-short", is_flag=True, help="Begin even where memory looks too short, which is an estimate.")
@lenient_options
def propose(**options: Any) -> None:
    """Propose nested budgets of given sizes.

    The checkpoint's axes are to be sorted by importance, else a warning says so. Layers are ranked, widths are cut, and
    budgets of that size compared by their KL divergence from the parent on a text. Weights are read a layer at a time.
    What was measured is kept in OUTPUT.partial until the end: the same command again goes on from there.

    These are not the vendor's budgets; `budgets derive` finds those in checkpoints that were cut.
    """
    progress = ConsoleProgress()
    _check_request(options)
    checkpoint = _opened(options, progress)
    try:
        _propose(checkpoint, options, progress)
    except KeyboardInterrupt:
        progress.say("what was measured is kept: the same command again goes on from there")
        raise


def _propose(checkpoint: Checkpoint, options: dict[str, Any], progress: ConsoleProgress) -> None:
    # torch takes seconds to import; a request at fault is told at once
    from elastic_export.evaluate.cost import check_memory, cost_text  # noqa: PLC0415
    from elastic_export.propose.cost import proposing_cost  # noqa: PLC0415
    from elastic_export.propose.document import proposal_document, proposal_evaluation  # noqa: PLC0415
    from elastic_export.propose.grid import Grid  # noqa: PLC0415
    from elastic_export.propose.measuring import Measuring  # noqa: PLC0415
    from elastic_export.propose.propose import propose as run  # noqa: PLC0415
    from elastic_export.propose.store import Store  # noqa: PLC0415
    from elastic_export.propose.target import check_targets  # noqa: PLC0415

    output: Path = options["output"]
    precision = cast("Precision", options["precision"] or checkpoint.dtype)
    grid = Grid(checkpoint.architecture, precision)
    request = _request(checkpoint, precision, options, progress)
    check_targets(request.targets, request.measure, grid.architecture(grid.smallest), checkpoint.architecture)
    store = Store(output.with_name(output.name + ".partial"), _inputs(checkpoint, request))
    if store.other:
        progress.say(f"{output}.partial: of another checkpoint, text or version, so that all is measured anew")
    elif len(store):
        progress.say(f"{output}.partial: {len(store)} measurements are there already")
    measuring = Measuring(checkpoint, grid, store, progress)
    cost, memory = proposing_cost(request, grid, measuring), free_memory()
    progress.say(cost_text(cost, measure_rates(min(checkpoint.shards)), memory))
    if not options["allow_short"]:
        check_memory(cost, memory)
    found = run(request, grid, measuring, progress)
    facts = _target_facts(options, precision)
    measured = proposal_evaluation(found, request, checkpoint, options["max_context"])
    document = proposal_document(found, request, checkpoint, measured, facts)
    write_whole(output, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "--output")
    store.remove()
    click.echo(measured.table())
    click.echo("proposed by measuring, not the vendor's budgets")


def _target_facts(options: dict[str, Any], precision: Precision) -> dict[str, Any]:
    """What VRAM is of, besides the model."""
    if options["vram"] is None:
        return {}
    quantised = {} if options["quantize"] == "none" else {"quantize": options["quantize"]}
    return {"max_context": options["max_context"], "precision": precision, **quantised}


def _request(
    checkpoint: Checkpoint, precision: Precision, options: dict[str, Any], progress: ConsoleProgress
) -> Request:
    from elastic_export.propose.propose import Request, default_effort  # noqa: PLC0415
    from elastic_export.propose.target import parameter_measure, parse_targets, vram_measure  # noqa: PLC0415

    by_vram = options["vram"] is not None
    option = "--vram" if by_vram else "--params"
    targets = parse_targets(option, options["vram"] if by_vram else options["params"], options["names"])
    if by_vram:
        check_limits(
            checkpoint.architecture,
            ops="native",  # which any model can have: the context is in question
            precision=precision,
            compute_capabilities=(),
            max_tokens=min(MAX_TOKENS, options["max_context"]),
            max_context=options["max_context"],
            max_batch=1,
        )
        if options["quantize"] == "int8":
            check_even(checkpoint.architecture, precision)
    effort = default_effort(checkpoint.architecture)
    rounds = effort.rounds if options["rounds"] is None else options["rounds"]
    search, final = _passages(checkpoint, options, options["search_tokens"] or effort.tokens)
    progress.say_all(final.notes)
    quantise = options["quantize"]
    measure = vram_measure(precision, options["max_context"], quantise) if by_vram else parameter_measure()
    return Request(targets, measure, search, final, rounds)


def _passages(checkpoint: Checkpoint, options: dict[str, Any], asked: int) -> tuple[Passage, Passage]:
    """The text for the search, and for the last measurement the same and more."""
    from elastic_export.evaluate.passage import read_passage  # noqa: PLC0415

    tokenizer, vocab = tokenizer_of(options["tokenizer"] or checkpoint.path), checkpoint.architecture.vocab_size
    search, final = (
        read_passage(options["text"], tokenizer, vocab=vocab, context=options["context"], tokens=tokens)
        for tokens in (asked, max(asked, options["tokens"]))
    )
    if search.whole and search.tokens < asked:
        expected, todo = f"{asked} tokens or more to compare budgets on", "give a longer text, or fewer --search-tokens"
        raise InputError(str(options["text"]), expected=expected, found=f"{search.tokens}", todo=todo)
    return search, final


def _inputs(checkpoint: Checkpoint, request: Request) -> dict[str, Any]:
    """What measurements depend on besides the cuts, which their keys name."""
    from elastic_export.propose.store import checkpoint_inputs  # noqa: PLC0415

    ids = [window.ids.tolist() for window in request.search.windows]
    return {"checkpoint": checkpoint_inputs(checkpoint), "text": request.final.sha256, "search": ids}


def _opened(options: dict[str, Any], progress: ConsoleProgress) -> Checkpoint:
    folder = resolve_checkpoint(options["checkpoint"], os.environ)
    if folder is None:
        todo = "name the folder of config.json"
        raise InputError("--checkpoint", expected="a checkpoint to cut", found="none", todo=todo)
    checkpoint = Checkpoint.open(
        folder,
        ignore_tensors=options["ignore_tensors"],
        ignore_config=options["ignore_config"],
        require_budgets=False,
    )
    progress.say_all(checkpoint.warnings)
    check_any_column(str(folder), checkpoint.tensors)
    return checkpoint


def _check_request(options: dict[str, Any]) -> None:
    """What can be refused without a checkpoint."""
    sizes = [name for name in ("params", "vram") if options[name] is not None]
    if len(sizes) != 1:
        found = "both" if sizes else "neither"
        raise InputError("--params, --vram", expected="one of them", found=found, todo="write --params 9B,6B")
    if options["quantize"] != "none" and options["vram"] is None:
        todo = "leave it out: budgets of so many parameters are the same in eight bits"
        raise InputError("--quantize", expected="--vram beside it", found="--params", todo=todo)
    if options["text"] is None:
        raise InputError(
            "--text",
            expected="a text to measure on",
            found="none",
            todo="name a file in UTF-8 of what the model will write about, some pages of it: budgets depend on it",
        )
    for name in ("max_context", "search_tokens", "tokens", "rounds"):
        if options[name] is not None:
            check_count("--" + name.replace("_", "-"), options[name])
    output: Path = options["output"]
    check_apart({"--text": options["text"], "--output": output})
    if output.exists() and not options["force"]:
        todo = "name another file, or replace it with --force"
        raise InputError(str(output), expected="no such file yet", found="one", todo=todo)
    check_output(output)
