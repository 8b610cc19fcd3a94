"""`elastic-run`: load a bundle, choose a budget, stream text."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from elastic_runtime.bundle import Bundle
from elastic_runtime.cli.options import check_beside
from elastic_runtime.cli.stats import Stopwatch, cut_note, report
from elastic_runtime.cli.streams import is_reader_gone, speak_utf8
from elastic_runtime.errors import (
    FAULT,
    NO_ROOM,
    BuildError,
    ElasticError,
    InputError,
    InternalError,
    advised,
    internal_error,
    machine_error,
)
from elastic_runtime.fit.sizes import parse_size
from elastic_runtime.format.jsonfile import parse_json
from elastic_runtime.format.manifest import BudgetEntry
from elastic_runtime.generation import Finish, Piece, Settings, check_settings, generate
from elastic_runtime.opening import Opener
from elastic_runtime.sampling import Sampling
from elastic_runtime.session import Session
from elastic_runtime.session_request import Request
from elastic_runtime.text.eos import stop_ids
from elastic_runtime.text.tokenizer import Tokenizer

INTERRUPTED = 130  # as a shell reports SIGINT
_LESS_MEMORY = "Close other programs, or take a smaller budget or context"


def main() -> None:
    """The console script: every error becomes its text and exit code; a closed pipe and Ctrl-C end quietly."""
    try:
        if sys.stdout is None:
            raise BuildError("standard output", expected="an open one", found="a closed one", todo="use > /dev/null")
        speak_utf8()
        command.main(standalone_mode=False)
    except Exception as error:  # the last border: nothing may leave as a traceback
        if "--debug" in sys.argv[1:]:
            traceback.print_exc()
        _end(*_explain(error))
    except KeyboardInterrupt:
        _end(INTERRUPTED, "")


def _explain(error: Exception) -> tuple[int, str | None]:  # noqa: PLR0911  # one line a kind of error
    """Exit code and message; what the message does not name is a fault of ours."""
    if isinstance(error, ElasticError) and not isinstance(error, InternalError):
        return error.exit_code, f"error: {error}"
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code, None
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code, None
    if isinstance(error, click.Abort):
        return INTERRUPTED, ""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        _forget_output()
        error.filename = error.filename or "standard output"
    if shown := machine_error(error):
        return shown.exit_code, f"error: {shown}"
    if isinstance(error, MemoryError):
        return BuildError.exit_code, f"error: memory: expected enough for this, found none left. {_LESS_MEMORY}."
    return FAULT, internal_error(error, "again with --debug")


@contextmanager
def _quiet_when_nobody_reads() -> Iterator[None]:
    """A reader that has gone, as `| head` does, is no error: end as a process that SIGPIPE ends."""
    try:
        yield
    except OSError as error:  # caught here, since click would make exit code 1 of it
        if not is_reader_gone(error):
            raise
        _forget_output()
        _end(128 + signal.SIGPIPE if hasattr(signal, "SIGPIPE") else 1)


def _forget_output() -> None:
    """What could not be written must not be tried again while the interpreter ends."""
    with suppress(OSError, ValueError):  # a stream without a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(code: int, message: str | None = None) -> NoReturn:
    if message is not None:
        with suppress(OSError):  # nobody can be told
            click.echo(message, err=True)
    sys.exit(code)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="elastic-runtime", prog_name="elastic-run")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--budget", default="auto", help="Name of a budget; auto: the largest that fits.  [default: auto]")
@click.option("--vram", help="GPU memory to reckon with, such as 12GiB.  [default: what is free]")
@click.option("--context", type=int, help="Tokens of prompt and answer together.  [default: the largest engine's]")
@click.option(
    "--backend", type=click.Choice(["auto", "onnxruntime", "tensorrt-rtx"]), default="auto", show_default=True
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "gpu"]),
    default="auto",
    show_default=True,
    help="Where onnxruntime computes; an engine is always the card's.",
)
@click.option("--prompt", help="Text to continue; - reads standard input.")
@click.option("--ids", help="Token ids to continue, such as 1,2,3.")
@click.option("--chat", is_flag=True, help="Converse, a line a turn; /budget NAME switches.")
@click.option("--system", metavar="TEXT", help="With --chat: the system prompt, such as /no_think.")
@click.option(
    "--template-arg",
    "template_args",
    multiple=True,
    metavar="NAME=JSON",
    help="With --chat: an argument of the chat template, such as enable_thinking=false; repeatable.",
)
@click.option("--max-new", type=int, default=256, show_default=True, help="Tokens to generate.")
@click.option("--temperature", type=float, default=0.0, help="0: greedy.  [default: 0]")
@click.option("--top-k", type=int, default=0, help="Sample among the k most likely; 0: all.  [default: 0]")
@click.option("--top-p", type=float, default=1.0, help="Sample among the most likely of this total.  [default: 1]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--stop", multiple=True, help="Text at which to stop; may be given several times.")
@click.option("--ignore-eos", is_flag=True, help="Go on past end-of-text tokens.")
@click.option(
    "--weights", type=click.Choice(["auto", "float32", "stored"]), default="auto", help="Their form on the CPU."
)
@click.option("--threads", type=int, default=0, help="Of the CPU; 0: as onnxruntime thinks best.  [default: 0]")
@click.option("--weights-folder", type=click.Path(path_type=Path), help="Where external weights lie.")
@click.option(
    "--plugins",
    "plugin_folder",
    type=click.Path(path_type=Path),
    help="Folder of plugin libraries.  [default: the installed elastic-plugins]",
)
@click.option(
    "--trust-engine", is_flag=True, help="Run the plugin libraries inside engines: you know who made the bundle."
)
@click.option("--stats", is_flag=True, help="Time to first token, tokens/s, memory; to standard error.")
@click.option("--json", "as_json", is_flag=True, help="What was generated, by what, and the warnings, as JSON.")
@click.option("--explain", is_flag=True, help="Print what every budget needs, and which is chosen.")
@click.option("--verify", is_flag=True, help="Check all files and replay the golden runs.")
@click.option(
    "--require-engine",
    is_flag=True,
    help="With --verify: fail where no engine of a budget and context ran.",
)
@click.option("--bring-up", is_flag=True, help="Try the bundle's engines on this card, in stages, and write a report.")
@click.option("--report", type=click.Path(path_type=Path), default="bring-up.zip", show_default=True, help="Its file.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show a traceback with an error.")
def command(bundle: Path, explain: bool, verify: bool, require_engine: bool, bring_up: bool, **options: Any) -> None:
    """Run BUNDLE: stream the continuation of a prompt to standard output.

    Exit codes: 0 done; 1 a verification, a damaged file or the machine; 2 the request or the bundle is at fault; 70 an
    internal error, to be reported; 130 interrupted; 141 nobody reads the output.
    """
    with _quiet_when_nobody_reads():
        check_beside(click.get_current_context(), bring_up=bring_up, verify=verify)
        if bring_up:
            _bring_up(bundle, options)
            return
        _command(bundle, explain, verify, require_engine, options)


def _command(bundle: Path, explain: bool, verify: bool, require_engine: bool, options: dict[str, Any]) -> None:
    external = options.pop("weights_folder")
    if verify:
        _verify(bundle, external, require_engine, options)
        return
    with advised("leave --vram out to reckon with what is free"):
        vram = parse_size(options["vram"], "--vram") if options["vram"] is not None else None
    request = Request(
        budget=options["budget"],
        backend=options["backend"],
        device=options["device"],
        vram=vram,
        context=options["context"],
        weights=options["weights"],
        threads=options["threads"],
        plugin_folder=options["plugin_folder"],
        trust_engine=options["trust_engine"],
    )
    said = list[str]()

    def say(text: str) -> None:
        said.append(text)
        _say(text)

    opener = Opener(Bundle.open(bundle, external=external), request, say=say)
    if explain:
        click.echo(opener.explain())
        return
    _generate(opener, options, said)


def _generate(opener: Opener, options: dict[str, Any], said: Sequence[str]) -> None:
    given = [name for name in ("prompt", "ids", "chat") if options[name] not in (None, False)]
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name in given) or "none"
        raise InputError(
            "request", expected="one of --prompt, --ids and --chat", found=found, todo="give one, as in --prompt Hello"
        )
    if options["chat"] and options["as_json"]:
        raise InputError("--json", expected="one answer", found="--chat", todo="leave one of them out")
    for name, option in (("system", "--system"), ("template_args", "--template-arg")):
        if options[name] and not options["chat"]:
            raise InputError(option, expected="--chat beside it", found="none", todo="add --chat, or leave it out")
    tokenizer = None if options["ids"] is not None else Tokenizer(opener.bundle.path)
    settings = Settings(
        max_new=options["max_new"],
        sampling=Sampling(options["temperature"], options["top_k"], options["top_p"], options["seed"]),
        stop_ids=() if options["ignore_eos"] else _stop_ids(opener.bundle, tokenizer),
        stop_texts=options["stop"],
    )
    vocab_size = opener.bundle.budgets[0].widths.vocab_size
    check_settings(settings, vocab_size, text=tokenizer is not None)  # before a model is loaded for nothing
    if options["chat"] and tokenizer:
        from elastic_runtime.cli.chat import Speech, converse  # noqa: PLC0415

        arguments, system = _template_arguments(options["template_args"]), options["system"]
        speech = Speech(tokenizer, settings, system=system, arguments=arguments)
        sys.exit(converse(opener, speech, say=_say, write=_write, stats=options["stats"]))
    ids = _prompt_ids(options, tokenizer)
    _check_prompt(ids, vocab_size, options["context"])
    watch = Stopwatch()
    session = opener.open()
    with session:
        watch.opened()
        pieces = watch.counted(generate(session, [ids], settings, tokenizer))
        if options["as_json"]:
            click.echo(_json(list(pieces), session, opener.budget, said))
        elif note := cut_note(_print(pieces, _write if tokenizer else _write_id), settings, session):
            _say(note)
        if options["stats"]:
            _say(report(watch, session, opener.budget, prompt=len(ids)))


def _json(pieces: Sequence[Piece], session: Session, budget: BudgetEntry | None, said: Sequence[str]) -> str:
    """A generation for programs: what was said on standard error meanwhile is among it."""
    found = {
        "text": "".join(piece.text for piece in pieces),
        "ids": [piece.id for piece in pieces],
        "finish": pieces[-1].finish if pieces else None,
        "budget": budget.name if budget else None,
        "backend": session.backend.name,
        "device": session.backend.device,
        "warnings": list(said),
    }
    return json.dumps(found, indent=1, ensure_ascii=False)


def _stop_ids(bundle: Bundle, tokenizer: Tokenizer | None) -> tuple[int, ...]:
    """What ends a text ends one of ids too, although nothing is there that makes text of them."""
    vocab_size = bundle.budgets[0].widths.vocab_size
    return tokenizer.stop_ids(vocab_size) if tokenizer else stop_ids(bundle.path, vocab_size)


def _check_prompt(ids: Sequence[int], vocab_size: int, context: int | None) -> None:
    """What a session would say of a prompt, before there is one."""
    for token in ids:
        if not 0 <= token < vocab_size:
            todo = "encode the text with the tokenizer of this bundle"
            raise InputError("token ids", expected=f"0 to {vocab_size - 1}", found=f"{token}"[:60], todo=todo)
    if not ids:
        todo = "begin with some text, or with the id that texts begin with"
        raise InputError("prompt", expected="at least one token", found="none", todo=todo)
    if context is not None and 1 <= context < len(ids):
        expected, todo = (
            f"at most {context} tokens, the context",
            "shorten it, or open the bundle with a larger context",
        )
        raise InputError("prompt", expected=expected, found=f"{len(ids)}", todo=todo)


def _template_arguments(given: Sequence[str]) -> dict[str, Any]:
    """`NAME=JSON` of each; what is no JSON is a text."""
    found: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name.isidentifier():
            todo = "write it as in --template-arg enable_thinking=false"
            raise InputError("--template-arg", expected="NAME=JSON", found=repr(item[:60]), todo=todo)
        try:
            parsed = parse_json(f'{{"value": {value}}}'.encode("utf-8", "replace"), name)
        except InputError:
            parsed = {}
        found[name] = parsed["value"] if len(parsed) == 1 else value  # of two it is no value: `1, "b": 2`
    return found


def _prompt_ids(options: dict[str, Any], tokenizer: Tokenizer | None) -> Sequence[int]:
    if tokenizer is None:
        try:
            return [int(part) for part in options["ids"].split(",")]
        except ValueError:
            raise InputError(
                "--ids",
                expected="integers divided by commas",
                found=options["ids"][:60],
                todo="write them as in --ids 1,2,3",
            ) from None
    return tokenizer.encode(_stdin() if options["prompt"] == "-" else options["prompt"])


def _stdin() -> str:
    if sys.stdin is None:
        raise InputError(
            "standard input", expected="an open one", found="a closed one", todo="redirect a file to it, as in < FILE"
        )
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            "standard input",
            expected="UTF-8",
            found=f"an invalid byte at {error.start}",
            todo="convert it, as with iconv -t UTF-8",
        ) from None


def _print(pieces: Iterable[Piece], write: Callable[[Piece], None]) -> Finish | None:
    """Write them; returns why they ended."""
    finish: Finish | None = None
    for piece in pieces:
        write(piece)
        finish = piece.finish
    click.echo()
    return finish


def _write(piece: Piece) -> None:
    """Text as it comes; sys.stdout, since a token must not wait for a line."""
    sys.stdout.buffer.write(piece.text.encode("utf-8"))
    sys.stdout.buffer.flush()


def _write_id(piece: Piece) -> None:
    sys.stdout.write(f"{piece.id} ")
    sys.stdout.flush()


def _verify(bundle: Path, external: Path | None, require_engine: bool, options: dict[str, Any]) -> None:
    from elastic_runtime.verify.bundle_verification import verify_bundle  # noqa: PLC0415

    result = verify_bundle(
        bundle,
        require_engine=require_engine,
        say=_say,
        external=external,
        plugins=options["plugin_folder"],
        trust_engine=options["trust_engine"],
    )
    click.echo(result.text())
    if not result.passed:
        sys.exit(1)


def _bring_up(bundle: Path, options: dict[str, Any]) -> None:
    """Exit 1 where a stage failed; on a machine without a card none is tried, and none fails."""
    from elastic_runtime.bringup.bring_up import bring_up  # noqa: PLC0415

    report, trusted = options["report"], options["trust_engine"]
    plugins, external = options["plugin_folder"], options["weights_folder"]
    steps = bring_up(bundle, report, plugins=plugins, trust_engine=trusted, external=external, say=_say)
    click.echo((report.with_suffix("") / "summary.txt").read_text("utf-8"), nl=False)
    if any("found" not in step.result for step in steps):
        sys.exit(1)


def _say(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    main()
