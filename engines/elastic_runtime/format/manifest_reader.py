"""Reading `manifest.json`: the seal, then the schema, then what no type can say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from elastic_runtime.errors import BuildError, InputError, advised
from elastic_runtime.format.digest import is_digest
from elastic_runtime.format.interface import Port, logits_port, shape_text
from elastic_runtime.format.jsonfile import parse_json
from elastic_runtime.format.manifest import SCHEMA, BudgetEntry, EngineEntry, FileEntry, Manifest
from elastic_runtime.format.paths import check_file_name, check_name, check_relative
from elastic_runtime.format.records import decode, show
from elastic_runtime.format.seal import is_sealed

NAME = "manifest.json"
_READ_LIMIT = 16 << 20  # bytes; 20 budgets of a 62-layer model with five engines each take 2 MB
_MAX_COUNT = 2**40  # tokens, rows, layers: far above any machine, far below an overflow of products in 64 bits


class DamageError(BuildError):
    """A file of a bundle is not the one that was written: exit 1."""


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`.

    Raises:
        InputError: no such folder or file, another schema version, a value that breaks a rule.
        DamageError: the file's bytes are not those that were sealed.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file:
            data = file.read(_READ_LIMIT + 1)
    except OSError as error:
        todo = "name the folder that elastic-export wrote"
        raise InputError(str(folder), expected="a bundle", found=_instead(folder, error), todo=todo) from error
    with advised("export the bundle again, or use the elastic_runtime of the version that wrote it"):
        return parse_manifest(data, str(path))


def _instead(folder: Path, error: OSError) -> str:
    """What is there, where the manifest could not be opened."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return error.strerror or "an error"
    if folder.is_dir():
        return f"no {NAME} in it"
    return "a file" if folder.exists() else "no such folder"


def parse_manifest(data: bytes, where: str = NAME) -> Manifest:
    """The manifest that `data` holds; `where` names it in errors."""
    if len(data) > _READ_LIMIT:
        raise InputError(where, expected=f"at most {_READ_LIMIT} bytes", found="more")
    if not is_sealed(data):
        raise DamageError(
            where, expected="the bytes that were sealed", found="other ones", todo="copy the bundle again"
        )
    value = parse_json(data, where)
    schema = value.pop("schema", None)
    if schema != SCHEMA:
        todo = "use the elastic_runtime of the version that wrote the bundle"
        raise InputError(f"{where}: schema", expected=repr(SCHEMA), found=show(schema), todo=todo)
    value.pop("seal", None)  # it may stand deeper in a forged file
    return _checked(decode(Manifest, value, where), where)


def _checked(manifest: Manifest, where: str) -> Manifest:
    _check_files(manifest.files, f"{where}: files")
    _check_files(manifest.external_weights, f"{where}: external_weights")
    _check_unique((budget.name for budget in manifest.budgets), f"{where}: budgets")
    if not manifest.budgets:
        raise InputError(f"{where}: budgets", expected="at least one", found="none")
    known = {entry.path for entry in manifest.files}
    for budget in manifest.budgets:
        logits = logits_port(budget.widths.vocab_size, every_token=manifest.logits == "all")
        _check_budget(budget, known, logits, f"{where}: budget {show(budget.name)}")
    return manifest


def _check_files(files: Iterable[FileEntry], where: str) -> None:
    files = tuple(files)
    _check_unique((entry.path for entry in files), where)
    for entry in files:
        check_relative(entry.path, where)
        if not is_digest(entry.sha256):
            raise InputError(f"{where}: {entry.path}", expected="a sha256 of 64 hex digits", found=show(entry.sha256))


def _check_budget(budget: BudgetEntry, known: set[str], logits: Port, where: str) -> None:
    check_name(budget.name, f"{where}: name")
    if budget.name in ("", "auto"):  # nobody could ask for it
        raise InputError(f"{where}: name", expected="a name other than auto", found=show(budget.name) or "none")
    named = [budget.model, budget.weights, budget.golden, budget.report, *(e.file for e in budget.engines)]
    for path in (path for path in named if path is not None):
        if path not in known:
            raise InputError(where, expected="files that the manifest lists", found=show(path))
    if not len(budget.pattern) == budget.layers == len(budget.kept_layers):
        found = f"{len(budget.pattern)}, {budget.layers} and {len(budget.kept_layers)}"
        raise InputError(where, expected="pattern, layers and kept_layers of one length", found=found)
    _check_unique((state.name for state in budget.states), f"{where}: states")
    _check_unique((f"{e.target} at {e.max_context}, {e.ops}," for e in budget.engines), f"{where}: engines")
    for engine in budget.engines:
        _check_engine(engine, logits, f"{where}: engine {show(engine.file)}")


def _check_engine(engine: EngineEntry, logits: Port, where: str) -> None:
    check_name(engine.target, f"{where}: target")
    for name in ("max_context", "max_tokens", "max_batch"):
        value = getattr(engine, name)
        if not 1 <= value <= _MAX_COUNT:
            raise InputError(f"{where}: {name}", expected=f"1 to {_MAX_COUNT}", found=str(value))
    if engine.max_tokens > engine.max_context:
        found = f"{engine.max_tokens} and {engine.max_context}"
        raise InputError(where, expected="max_tokens up to max_context", found=found)
    if (engine.plugin is None) == (engine.ops == "plugin"):
        raise InputError(
            f"{where}: plugin", expected="a library if and only if ops is plugin", found=show(engine.plugin)
        )
    if engine.plugin is not None:
        check_file_name(engine.plugin.library, f"{where}: plugin")
        if (carried := engine.plugin.carried) is not None and not (is_digest(carried.sha256) and carried.size):
            found = f"{carried.size} bytes of {show(carried.sha256)}"
            raise InputError(f"{where}: plugin", expected="size and sha256 of a library", found=found)
    inputs = {port.name for port in engine.inputs}
    for port in engine.outputs:
        if (port.input is None) != (port.alias is None) or (port.input is not None and port.input not in inputs):
            raise InputError(
                f"{where}: output {show(port.name)}", expected="an input with its alias rule", found=show(port.input)
            )
    given = [Port(port.name, port.dtype, port.shape) for port in engine.outputs if port.input is None]
    if given != [logits]:  # what they take on a card is reckoned from the widths
        found = show(", ".join(map(_port_text, given))) or "none"
        raise InputError(f"{where}: outputs", expected=f"one that is no state, {_port_text(logits)}", found=found)


def _port_text(port: Port) -> str:
    return f"{port.name} {port.dtype} {shape_text(port.shape)}"


def _check_unique(names: Iterable[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(where, expected="every name once", found=f"{show(name)} twice")
        seen.add(name)
