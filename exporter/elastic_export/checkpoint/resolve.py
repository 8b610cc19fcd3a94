"""Which folder `--checkpoint` means: a folder, or a repository in the local Hugging Face cache."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from elastic_runtime.errors import InputError

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def resolve_checkpoint(
    argument: str | None, environ: Mapping[str, str], *, subject: str = "--checkpoint"
) -> Path | None:
    """The checkpoint's folder; None where neither `argument` nor ELASTIC_CHECKPOINT is given: the demo model.

    Nothing is downloaded.

    Args:
        argument: the value of `--checkpoint`: a folder, or `OWNER/NAME` of a cached repository.
        environ: the environment, for ELASTIC_CHECKPOINT.
        subject: what errors call `argument`.

    Raises:
        InputError: an empty value, or neither a folder nor in the cache (with the download command).
    """
    source, value = subject, argument
    if value is None:
        source, value = "ELASTIC_CHECKPOINT", environ.get("ELASTIC_CHECKPOINT")
    if value is None:
        return None
    if not value.strip():
        todo = f"{'unset it' if source == 'ELASTIC_CHECKPOINT' else 'leave it out'} to export the demo model"
        raise InputError(source, expected="a folder or a Hugging Face repository id", found="an empty value", todo=todo)
    if "\0" not in value and Path(value).is_dir():
        return Path(value)
    if not _REPOSITORY.fullmatch(value):
        raise InputError(
            source,
            expected="a folder or a Hugging Face repository id",
            found=repr(value),
            todo="name a folder that exists, or OWNER/NAME",
        )
    return _snapshot(source, value, hub_cache())


def hub_cache() -> Path:
    """The folder of cached repositories: where `hf download` puts them."""
    from huggingface_hub.constants import HF_HUB_CACHE  # noqa: PLC0415  # a folder's name needs no import

    return Path(HF_HUB_CACHE)


def _snapshot(source: str, repository: str, cache: Path) -> Path:
    folder = cache / f"models--{repository.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        commit = ""
    snapshots = sorted(path for path in folder.glob("snapshots/*") if path.is_dir())
    chosen = [path for path in snapshots if path.name == commit] or snapshots
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        found = f"{len(chosen)} snapshots and none marked as main"
        todo = f"pass the folder of one: {chosen[0]}"
    else:
        found = f"{repository!r}, neither a folder nor in {cache}"
        todo = f"download it: hf download {repository}"
        if str(cache).startswith("~"):  # as it stands where nobody knows the user's home
            todo = f"name the cache with HF_HOME, since HOME is not set; or {todo}"
    raise InputError(source, expected="a folder or a repository in the local cache", found=found, todo=todo)
