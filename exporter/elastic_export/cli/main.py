"""The command group; without a subcommand it exports."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import click
from click.core import ParameterSource

from elastic_export import __version__
from elastic_export.cli.budgets import budgets
from elastic_export.cli.doctor import doctor
from elastic_export.cli.evaluate import evaluate
from elastic_export.cli.export import export_options, run_export
from elastic_export.cli.inspect import inspect
from elastic_export.cli.merge import merge
from elastic_export.cli.plan import plan
from elastic_export.cli.plugins import plugins
from elastic_export.cli.report import report
from elastic_export.cli.targets import targets
from elastic_export.cli.verify import verify
from elastic_runtime.cli.streams import check_output_is_open, forget_output
from elastic_runtime.errors import (
    FAULT,
    INTERRUPTED,
    BuildError,
    ElasticError,
    InternalError,
    internal_error,
    is_interrupted,
    machine_error,
)

_INTERRUPTED = "interrupted; a bundle is the old one, or the new one where it had just been published"


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="elastic-export")
@export_options
@click.pass_context
def cli(context: click.Context, /, **options: Any) -> None:
    """Compile an elastic Nemotron-H checkpoint: one verified TensorRT engine per nested sub-model and GPU class.

    elastic-export --checkpoint DIR --budget all --target rtx5080

    Without --checkpoint (or ELASTIC_CHECKPOINT) a small built-in demo model is exported.

    Exit codes: 0 done; 1 a build, a verification or the machine failed; 2 the request or the input is at fault; 70 an
    internal error, to be reported with what `elastic-export --debug ...` prints; 130 interrupted.
    """
    if context.invoked_subcommand is None:
        run_export(**options)
        return
    given = [name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    spelt = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    if misplaced := [spelt[name] for name in given if name != "debug"]:
        raise click.UsageError(
            f"{', '.join(misplaced)}: options of an export; {context.invoked_subcommand} takes its own"
        )


for command in (plan, merge, verify, evaluate, inspect, report, targets, budgets, plugins, doctor):
    cli.add_command(command)


def main() -> None:
    """Run the command; every error becomes a message and an exit code."""
    debug = "--debug" in sys.argv[1:]
    try:
        check_output_is_open()
        code = cli.main(standalone_mode=False)
    except Exception as error:  # the last border: nothing may leave as a traceback
        if debug:
            traceback.print_exc()
        code = _explain(error)
    except KeyboardInterrupt:
        click.echo(_INTERRUPTED, err=True)
        code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)


def _is_of_printing(error: OSError) -> bool:
    """A stream names no file, and nor does a file that is full; but what a command prints, click prints."""
    innermost = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    return error.filename is None and innermost.f_globals.get("__name__") == click.utils.__name__


def _is_unmapped(error: Exception) -> bool:
    """Whether a library found no memory to lie in, which the loader says in words alone."""
    return isinstance(error, ImportError) and "failed to map segment" in str(error)


def _explain(error: Exception) -> int:  # noqa: PLR0911  # one line a kind of error
    if is_interrupted(error) or isinstance(error, click.Abort):
        click.echo(_INTERRUPTED, err=True)
        return INTERRUPTED
    if isinstance(error, ElasticError) and not isinstance(error, InternalError):
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        error.show()
        return 2
    if isinstance(error, BrokenPipeError):
        forget_output()
        return BuildError.exit_code
    if isinstance(error, OSError) and _is_of_printing(error):
        forget_output()
        error.filename = "standard output"
    if shown := machine_error(error):
        click.echo(f"error: {shown}", err=True)
        return shown.exit_code
    if isinstance(error, MemoryError) or _is_unmapped(error):
        text = "expected enough for this step, found none left. Close other programs, or raise the limit (ulimit -v)."
        click.echo(f"error: memory: {text}", err=True)
        return BuildError.exit_code
    click.echo(internal_error(error, "it again as elastic-export --debug ..."), err=True)
    return FAULT
