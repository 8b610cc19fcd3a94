"""Where a job's bundle goes: asked before anything is built, and its writer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from elastic_export.bundle.add_rules import check_same
from elastic_export.bundle.digests import Digests
from elastic_export.bundle.entries import manifest_of
from elastic_export.bundle.output import check_output, os_errors_explained
from elastic_export.bundle.unfinished import tell_what_is_left
from elastic_export.bundle.writer import BundleWriter, Say
from elastic_export.plan.job import ExportJob


def check_destination(job: ExportJob) -> None:
    """Whether an export could begin to write its bundle where it was told to; writes nothing.

    Raises:
        InputError: as `check_output`, with `add` `check_same` and with `debug` `check_dumps` do, or the output cannot
            even be looked at.
    """
    options = job.options
    with os_errors_explained(options.output):
        _, previous = check_output(options.output, force=options.force, protect=_protected(job))
        _check_dumps(job)
    if options.add and previous is not None:
        check_same(previous, manifest_of(job, ()))


@contextmanager
def writer_of(job: ExportJob, say: Say, digests: Digests) -> Iterator[BundleWriter]:
    """The writer of a job's bundle, once it is known that the bundle may be written where and beside what is asked.
    `digests` end with it.
    """
    output, force, add = job.options.output, job.options.force, job.options.add
    with BundleWriter(output, force=force, add=add, protect=_protected(job), say=say, digests=digests) as writer:
        _check_dumps(job)
        writer.check_addable(manifest_of(job, ()))
        if job.eight_bits is None:
            tell_what_is_left(writer.output, say)
        yield writer


def _protected(job: ExportJob) -> tuple[Path, ...]:
    return () if job.demo else (job.checkpoint.path,)


def _check_dumps(job: ExportJob) -> None:
    if job.options.debug:
        from elastic_export.dumps import check_dumps  # noqa: PLC0415  # onnx, which a plan does not wait for

        check_dumps(job.options.output)
