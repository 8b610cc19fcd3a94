"""`elastic-run`: load a bundle, choose a budget, stream text."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from elastic_runtime.cli import modes
from elastic_runtime.cli.options import check_beside
from elastic_runtime.cli.streams import check_output_is_open, forget_output, is_reader_gone, speak_utf8
from elastic_runtime.errors import (
    FAULT,
    INTERRUPTED,
    NO_ROOM,
    BuildError,
    ElasticError,
    InternalError,
    internal_error,
    is_interrupted,
    machine_error,
)

_LESS_MEMORY = "Close other programs, or take a smaller budget or context"


def main() -> None:
    """The console script: every error becomes its text and exit code; a closed pipe and Ctrl-C end quietly."""
    try:
        check_output_is_open()
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
    if is_interrupted(error) or isinstance(error, click.Abort):
        return INTERRUPTED, ""
    if isinstance(error, ElasticError) and not isinstance(error, InternalError):
        return error.exit_code, f"error: {error}"
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code, None
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code, None
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        forget_output()
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
        forget_output()
        _end(128 + signal.SIGPIPE if hasattr(signal, "SIGPIPE") else 1)


def _end(code: int, message: str | None = None) -> NoReturn:
    if message is not None:
        with suppress(OSError):  # nobody can be told
            click.echo(message, err=True)
    sys.exit(code)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="elastic-runtime", prog_name="elastic-run")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--budget",
    default="auto",
    help="Name of a budget, or of one form of it (6b.int8); auto: the largest that fits.  [default: auto]",
)
@click.option("--vram", help="GPU memory to reckon with, such as 12GiB.  [default: what is free]")
@click.option(
    "--context",
    type=int,
    help="Tokens of prompt and answer together that must be possible.  [default: the largest engine's]",
)
@click.option(
    "--backend",
    type=click.Choice(["auto", "onnxruntime", "tensorrt-rtx"]),
    default="auto",
    show_default=True,
    help="What runs the model; auto: an engine on its card, else onnxruntime.",
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
@click.option("--max-new", type=int, default=256, show_default=True, help="Tokens to generate, at most.")
@click.option(
    "--temperature", type=float, default=0.0, help="Of sampling; 0: always the likeliest token.  [default: 0]"
)
@click.option("--top-k", type=int, default=0, help="Sample among the k most likely; 0: all.  [default: 0]")
@click.option(
    "--top-p",
    type=float,
    default=1.0,
    help="Sample among the most likely whose probabilities add up to this; 1: all.  [default: 1]",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of sampling: the same seed gives the same tokens."
)
@click.option("--stop", multiple=True, help="Text at which to end, left out; repeatable.")
@click.option(
    "--stop-id",
    "stop_ids",
    type=int,
    multiple=True,
    help="Token at which to end, in place of the bundle's end-of-text tokens; repeatable.",
)
@click.option("--ignore-eos", is_flag=True, help="Go on past end-of-text tokens.")
@click.option(
    "--weights",
    type=click.Choice(["auto", "float32", "stored"]),
    default="auto",
    show_default=True,
    help="Narrow weights on the CPU: float32 converts them once (twice the memory, faster), stored at every call; "
    "auto: what fits.",
)
@click.option(
    "--threads", type=int, default=0, help="Threads of the CPU; 0: as many as onnxruntime thinks best.  [default: 0]"
)
@click.option(
    "--weights-folder", type=click.Path(path_type=Path), help="Where the shards of a bundle with external weights are."
)
@click.option(
    "--plugins",
    "plugin_folder",
    type=click.Path(path_type=Path),
    help="Folder of plugin libraries.  [default: the installed elastic-plugins]",
)
@click.option(
    "--trust-engine", is_flag=True, help="Run the plugin libraries inside engines: you know who made the bundle."
)
@click.option("--print-ids", is_flag=True, help="Print token ids in place of text.")
@click.option("--stats", is_flag=True, help="Time to first token, tokens/s, memory; to standard error.")
@click.option("--json", "as_json", is_flag=True, help="What was generated, by what, and the warnings, as JSON.")
@click.option("--check", is_flag=True, help="First read every file and compare its digest.")
@click.option(
    "--explain",
    is_flag=True,
    help="Print what every budget needs, and which is chosen, and stop; without a card with --vram.",
)
@click.option("--verify", is_flag=True, help="Check all files and replay the golden runs, and stop.")
@click.option(
    "--require-engine",
    is_flag=True,
    help="With --verify: fail where no engine of a budget and context ran.",
)
@click.option("--bring-up", is_flag=True, help="Try the bundle's engines on this card, in stages, and write a report.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    default="bring-up.zip",
    show_default=True,
    help="With --bring-up: the report's file.",
)
@click.option(
    "--minutes", type=float, default=12.0, show_default=True, help="With --bring-up: what all stages together may take."
)
@click.option(
    "--plugin-sources",
    "sources",
    type=click.Path(path_type=Path),
    help="With --bring-up: a checkout's plugins/, whose kernels are checked where nvcc is.",
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show a traceback with an error.")
def command(bundle: Path, **options: Any) -> None:
    """Run BUNDLE: stream the continuation of a prompt to standard output.

    Needs one of --prompt, --ids and --chat, unless it is to explain, verify or bring up.

    Exit codes: 0 done; 1 a verification failed, a file is damaged, or the machine failed; 2 the request or the bundle
    is at fault; 70 an internal error, to be reported with what --debug prints; 130 interrupted; 141 nobody reads the
    output.
    """
    with _quiet_when_nobody_reads():
        check_beside(click.get_current_context())
        mode = modes.bring_up if options["bring_up"] else modes.verify if options["verify"] else modes.run
        mode(bundle, options)


if __name__ == "__main__":
    main()
