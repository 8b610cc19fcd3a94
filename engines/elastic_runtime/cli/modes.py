"""What `elastic-run` does with a bundle: generate, converse, explain, verify, bring up."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from elastic_runtime.bundle import Bundle, Check
from elastic_runtime.cli.options import check_generation, request_of, template_arguments
from elastic_runtime.cli.output import as_json, say, write_all, write_id, write_text
from elastic_runtime.cli.prompt import check_prompt, longest_context, prompt_ids
from elastic_runtime.cli.stats import Stopwatch, cut_note, report
from elastic_runtime.generation import Settings, check_settings, generate
from elastic_runtime.opening import Opener
from elastic_runtime.sampling import Sampling
from elastic_runtime.text.eos import stop_ids
from elastic_runtime.text.tokenizer import Tokenizer


def run(path: Path, options: dict[str, Any]) -> None:
    """Explain the choice of a budget, or generate."""
    request, said = request_of(options), list[str]()

    def say_and_keep(text: str) -> None:
        said.append(text)
        say(text)

    check: Check = "digests" if options["check"] else "sizes"
    opener = Opener(Bundle.open(path, check, external=options["weights_folder"]), request, say=say_and_keep)
    if options["explain"]:
        click.echo(opener.explain())
        return
    _generate(opener, options, said)


def _generate(opener: Opener, options: dict[str, Any], said: Sequence[str]) -> None:
    check_generation(options)
    tokenizer = None if options["ids"] is not None else Tokenizer(opener.bundle.path)
    settings = Settings(
        max_new=options["max_new"],
        sampling=Sampling(options["temperature"], options["top_k"], options["top_p"], options["seed"]),
        stop_ids=options["stop_ids"] or (() if options["ignore_eos"] else _stop_ids(opener.bundle, tokenizer)),
        stop_texts=options["stop"],
    )
    vocab_size = opener.bundle.budgets[0].widths.vocab_size
    check_settings(settings, vocab_size, text=tokenizer is not None)  # before a model is loaded for nothing
    if options["chat"] and tokenizer:
        from elastic_runtime.cli.chat import Speech, converse  # noqa: PLC0415

        arguments, system = template_arguments(options["template_args"]), options["system"]
        speech = Speech(tokenizer, settings, system=system, arguments=arguments)
        sys.exit(converse(opener, speech, say=say, write=write_text, stats=options["stats"]))
    ids = prompt_ids(options, tokenizer)
    check_prompt(ids, vocab_size, longest_context(opener.bundle, opener.request))
    as_text = tokenizer is not None and not options["print_ids"]
    watch = Stopwatch()
    session = opener.open()
    with session:
        watch.opened()
        pieces = watch.counted(generate(session, [ids], settings, tokenizer))
        if options["as_json"]:
            click.echo(as_json(list(pieces), session, opener.budget, said))
        elif note := cut_note(write_all(pieces, write_text if as_text else write_id), settings, session):
            say(note)
        if options["stats"]:
            say(report(watch, session, opener.budget, prompt=len(ids)))


def _stop_ids(bundle: Bundle, tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """What ends a text ends one of ids too, although nothing is there that makes text of them."""
    vocab_size = bundle.budgets[0].widths.vocab_size
    return tokenizer.stop_ids(vocab_size) if tokenizer else stop_ids(bundle.path, vocab_size)


def verify(path: Path, options: dict[str, Any]) -> None:
    """Check all files and replay the golden runs; exit 1 where something failed."""
    from elastic_runtime.verify.bundle_verification import verify_bundle  # noqa: PLC0415

    result = verify_bundle(
        path,
        budget=options["budget"],
        require_engine=options["require_engine"],
        say=say,
        external=options["weights_folder"],
        plugins=options["plugin_folder"],
        trust_engine=options["trust_engine"],
    )
    click.echo(result.text())
    if not result.passed:
        sys.exit(1)


def bring_up(path: Path, options: dict[str, Any]) -> None:
    """Exit 1 where a stage failed; on a machine without a card none is tried, and none fails."""
    from elastic_runtime.bringup import bring_up as stages  # noqa: PLC0415

    report_file, trusted = options["report"], options["trust_engine"]
    plugins, external = options["plugin_folder"], options["weights_folder"]
    limits = {"minutes": options["minutes"], "sources": options["sources"]}
    steps = stages.bring_up(
        path, report_file, plugins=plugins, trust_engine=trusted, external=external, say=say, **limits
    )
    click.echo((report_file.with_suffix("") / "summary.txt").read_text("utf-8"), nl=False)
    if any(step.failed for step in steps):
        sys.exit(1)
