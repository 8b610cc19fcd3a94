"""What `evaluate` is given: a bundle or a checkpoint, opened, and what of it is compared with what."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from elastic_export.bundle.fingerprint import fingerprint
from elastic_export.checkpoint.budgets import FILE_NAME
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.resolve import resolve_checkpoint
from elastic_export.progress import Progress
from elastic_runtime.bundle import Bundle
from elastic_runtime.errors import InputError
from elastic_runtime.format.interface import Precision

if TYPE_CHECKING:
    from elastic_export.evaluate.counterpart import Counterpart
    from elastic_export.evaluate.distance import Pair
    from elastic_export.evaluate.evaluate import Subject
    from elastic_export.evaluate.result import Source
    from elastic_export.evaluate.sub_model import SubModel


class Opened(NamedTuple):
    """What a path was found to be.

    Attributes:
        source: whose weights.
        folder: of the tokenizer.
        models: what to evaluate.
        parent: what to compare all of it with.
        shard: a file to time reading with.
        compared: `models`, each quantised, beside itself unquantised; none where no loss is to be measured.
        against: the checkpoint that has those, which may be that of `source`.
    """

    source: Source
    folder: Path
    models: list[SubModel]
    parent: SubModel
    shard: Path | None
    compared: Sequence[Counterpart] = ()
    against: Source | None = None

    def source_of(self, model: SubModel) -> Source | None:
        """Whose weights a model has, if not those of `source`."""
        quantised = any(model is each.quantised for each in self.compared)
        return None if quantised or self.against is self.source else self.against


def opened_path(path: Path, precisions: Sequence[Precision], options: dict[str, Any], progress: Progress) -> Opened:
    """Open what the path names, by the options of `evaluate`.

    Raises:
        InputError: it is neither a bundle nor a checkpoint, or an option is not for it; with `against`, that nothing is
            quantised, or that it is of another checkpoint.
    """
    if (path / "manifest.json").is_file():
        return _opened_bundle(path, precisions, options, progress)
    return _opened_checkpoint(path, precisions, options, progress)


def subjects_of(opened: Opened, precisions: Sequence[Precision]) -> tuple[list[Subject], int, list[Pair]]:
    """What is evaluated in which precision, which of them the others are compared with, and the pairs whose distance
    is measured.
    """
    from elastic_export.evaluate.distance import Pair  # noqa: PLC0415  # imports torch

    models = [model for each in opened.compared for model in (each.plain, each.quantised)] or opened.models
    subjects: list[Subject] = [(model, precision) for model in models for precision in precisions]
    if (opened.parent, "fp32") not in subjects:
        subjects.insert(0, (opened.parent, "fp32"))
    pairs = [
        Pair(subjects.index((each.quantised, precision)), subjects.index((each.plain, precision)))
        for each in opened.compared
        for precision in precisions
    ]
    return subjects, subjects.index((opened.parent, "fp32")), pairs


def _opened_bundle(path: Path, precisions: Sequence[Precision], options: dict[str, Any], progress: Progress) -> Opened:
    from elastic_export.evaluate.from_bundle import bundle_models  # noqa: PLC0415
    from elastic_export.evaluate.result import Source  # noqa: PLC0415

    _refuse(options, ("budgets_file", "quantize"), f"{path} is a bundle")
    if options["against"] is None:
        _refuse(options, ("ignore_tensors", "ignore_config"), f"{path} is a bundle")
    bundle = Bundle.open(path, external=options["weights_folder"])
    manifest = bundle.manifest
    if wrong := [p for p in precisions if p not in ("fp32", manifest.precision)]:
        expected = " or ".join(dict.fromkeys(("fp32", manifest.precision)))
        found, todo = f"{wrong[0]}, which the bundle does not ship", "evaluate the checkpoint in it"
        raise InputError("--precision", expected=expected, found=found, todo=todo)
    models, largest = bundle_models(bundle, options["budget"])
    opened = Opened(Source("bundle", manifest.checkpoint.name, manifest.precision), path, models, largest, None)
    if options["against"] is None:
        if any(model.quantisation for model in models):
            progress.say(f"{path}: quantised; --against CHECKPOINT measures what that has lost")
        return opened
    if plain := [model.name for model in models if model.quantisation is None]:
        quantised = [model for model in models if model.quantisation]
        if quantised:  # of what is there in both forms the checkpoint's stands for the other
            names = ", ".join(f"{name}.{manifest.precision}" for name in plain)
            progress.say(f"{path}: left out, since it is not quantised: {names}")
            models, opened = quantised, opened._replace(models=quantised)
    against = _opened_against(models, path, options, progress)
    if fingerprint(against.shards, against.architecture) != manifest.checkpoint.fingerprint:
        expected = f"{manifest.checkpoint.name} with the fingerprint {manifest.checkpoint.fingerprint[:16]}…"
        todo = "name the checkpoint that the bundle was exported from"
        raise InputError(
            f"--against {options['against']}", expected=expected, found="other weights or another config", todo=todo
        )
    return _compared(opened, against)


def _opened_checkpoint(
    path: Path, precisions: Sequence[Precision], options: dict[str, Any], progress: Progress
) -> Opened:
    from elastic_export.evaluate.counterpart import rounded_models  # noqa: PLC0415
    from elastic_export.evaluate.from_checkpoint import checkpoint_models  # noqa: PLC0415
    from elastic_export.evaluate.result import Source  # noqa: PLC0415

    _refuse(options, ("weights_folder",), f"{path} is no bundle")
    folder = resolve_checkpoint(str(path), os.environ, subject=str(path))
    assert folder is not None  # a path was given
    asked = options["budgets_file"] is not None or options["budget"] != "all" or (folder / FILE_NAME).exists()
    checkpoint = _checkpoint(folder, options, progress, options["budgets_file"], require_budgets=asked)
    if not asked:
        progress.say(f"{folder}: no {FILE_NAME}, so that the parent alone is evaluated")
    models, parent = checkpoint_models(checkpoint, options["budget"])
    source = Source("checkpoint", checkpoint.name, checkpoint.dtype)
    opened = Opened(source, folder, models, parent, min(checkpoint.shards))
    if options["quantize"] is not None:
        if "fp16" in precisions:
            expected, todo = "fp32 or bf16", "leave out fp16, or --quantize: engines with int8 weights compute in bf16"
            raise InputError("--precision", expected=expected, found="fp16 with --quantize int8", todo=todo)
        opened = opened._replace(models=rounded_models(checkpoint, models))
    if options["against"] is not None:
        return _compared(opened, _opened_against(opened.models, path, options, progress))
    return opened if options["quantize"] is None else _compared(opened, checkpoint, source)


def _checkpoint(
    folder: Path,
    options: dict[str, Any],
    progress: Progress,
    budgets_file: Path | None = None,
    *,
    require_budgets: bool = False,
) -> Checkpoint:
    checkpoint = Checkpoint.open(
        folder,
        budgets_file=budgets_file,
        ignore_tensors=options["ignore_tensors"],
        ignore_config=options["ignore_config"],
        require_budgets=require_budgets,
    )
    progress.say_all(checkpoint.warnings)
    return checkpoint


def _opened_against(models: Sequence[SubModel], path: Path, options: dict[str, Any], progress: Progress) -> Checkpoint:
    """The checkpoint of `--against`; what is compared with it has to be quantised."""
    if plain := [model.name for model in models if model.quantisation is None]:
        expected, todo = "quantised weights to compare", "leave it out, or add --quantize int8 for a checkpoint"
        raise InputError(
            "--against", expected=expected, found=f"{', '.join(plain)} of {path} in {models[0].dtype}", todo=todo
        )
    folder = resolve_checkpoint(str(options["against"]), os.environ, subject="--against")
    assert folder is not None  # a path was given
    return _checkpoint(folder, options, progress, require_budgets=(folder / FILE_NAME).is_file())


def _compared(opened: Opened, checkpoint: Checkpoint, source: Source | None = None) -> Opened:
    """`source`: the path's, where the checkpoint is its own."""
    from elastic_export.evaluate.counterpart import counterparts  # noqa: PLC0415
    from elastic_export.evaluate.result import Source  # noqa: PLC0415

    compared, parent = counterparts(opened.models, checkpoint)
    against = source or Source("checkpoint", checkpoint.name, checkpoint.dtype)
    return opened._replace(compared=compared, parent=parent, against=against)


def _refuse(options: dict[str, Any], names: Sequence[str], why: str) -> None:
    """Options that would say nothing."""
    for name in names:
        if options[name]:
            option = "--" + name.removesuffix("_file").replace("_", "-")
            raise InputError(option, expected="no such option", found=f"it, but {why}", todo="leave it out")
