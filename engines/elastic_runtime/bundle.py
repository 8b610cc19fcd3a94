"""A bundle on disk: opened, checked, asked."""

from __future__ import annotations

import errno
import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from elastic_runtime.backend import Origin
from elastic_runtime.driver.free_memory import card
from elastic_runtime.errors import InputError, advised
from elastic_runtime.fit.choose import Choice, choose
from elastic_runtime.format.digest import file_digest
from elastic_runtime.format.forms import AUTO, forms_of
from elastic_runtime.format.manifest import BudgetEntry, FileEntry, Manifest
from elastic_runtime.format.manifest_reader import DamageError, read_manifest
from elastic_runtime.format.paths import inside
from elastic_runtime.format.records import show
from elastic_runtime.format.safetensors import read_metadata
from elastic_runtime.format.weights import WeightRecipe

Check = Literal["sizes", "digests"]
_AGAIN = "copy the bundle again, or export it again"
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # a path leads nowhere, whatever may be done with its folders
_CHEAP_BYTES = 1 << 20  # files up to this size are digested whatever was asked: a few milliseconds for all of them


@dataclass(frozen=True)
class Bundle:
    """What `Bundle.open` returns. `external` is the folder of the parent's shards where the bundle only names them."""

    path: Path
    manifest: Manifest
    external: Path | None = None

    @classmethod
    def open(
        cls,
        path: Path | str,
        check: Check = "sizes",
        *,
        external: Path | None = None,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Bundle:
        """Read the manifest and check the files it lists.

        Args:
            path: the bundle's folder.
            check: `sizes` looks at every file's size and digests those up to 1 MiB; `digests` reads all of them.
            external: the folder of external weights; without it they are not checked.
            on_bytes: hears of every piece that was read for a digest.

        Raises:
            InputError: not a bundle, or one of another version; `external` for a bundle that holds its own weights.
            DamageError: a file is missing, or is not the one that was written; it is named.
        """
        folder = Path(path)
        bundle = cls(folder, read_manifest(folder), external)
        check_external(folder, bundle.manifest, external)
        for entry in bundle.manifest.files:
            check_file(inside(folder, entry.path, entry.path), entry, check, on_bytes)
        if external is not None:
            for entry in bundle.manifest.external_weights:
                check_shard(external, entry, check, on_bytes)
        return bundle

    @property
    def budgets(self) -> tuple[BudgetEntry, ...]:
        """The sub-models, largest first, and what is quantised behind what is not."""
        return self.forms(AUTO)

    def budget(self, name: str) -> BudgetEntry:
        """The budget of that name; where the bundle has it in several forms, the unquantised one. Raises InputError
        that lists them.
        """
        return self.forms(name)[0]

    def forms(self, name: str) -> tuple[BudgetEntry, ...]:
        """What a name stands for, in the order in which it is chosen (`format.forms`): the forms of a budget, one of
        them (`6b.int8`), or with `auto` all budgets. Raises InputError that lists them.
        """
        return forms_of(self.manifest.budgets, name, self.manifest.precision)

    def origin(self, budget: BudgetEntry) -> Origin:
        """What a backend of that budget runs."""
        return Origin(hashlib.sha256(self.manifest.to_json().encode()).hexdigest(), budget.name)

    def choose(
        self,
        *,
        vram: int | None = None,
        context: int | None = None,
        at_least: int = 1,
        batch: int = 1,
        compute_capability: str | None = None,
        budget: str = AUTO,
    ) -> Choice:
        """The largest budget that fits `vram` bytes with `context` tokens (`choose.choose`); with a `budget` named, of
        its `forms`.

        Without `vram` the card is asked for what is free, and for its compute capability where that is not named.
        Raises InputError where there is no card to ask, or no such budget.
        """
        if vram is None:
            found = card()
            vram, compute_capability = found.free, compute_capability or found.compute_capability
        return choose(
            self.forms(budget),
            vram=vram,
            context=context,
            at_least=at_least,
            batch=batch,
            compute_capability=compute_capability,
        )

    def recipe(self, budget: BudgetEntry) -> WeightRecipe:
        """Its weights.json. Raises InputError when its weights are embedded in model and engine, or where they are of a
        quantised parent and a file is another's: it would be as large, and every value in its place.
        """
        if budget.weights is None:
            raise InputError(
                f"budget {budget.name!r}",
                expected="shared or sliced weights",
                found="embedded ones",
                todo="read them from its model.onnx, or export with --weights shared",
            )
        recipe = WeightRecipe.read(self.path / budget.weights)
        if budget.quantisation is not None:
            for file in sorted({part.file for item in recipe.inputs for part in item.parts}):
                self._check_parent((self.path / budget.weights).parent / file)
        return recipe

    def _check_parent(self, file: Path) -> None:
        with advised(_AGAIN):
            wanted, found = self.manifest.checkpoint.fingerprint, read_metadata(file).get("parent", "none")
        if found != wanted:
            raise InputError(
                str(file),
                expected=f"the quantised weights of {self.manifest.checkpoint.name}, {wanted[:12]}…",
                found=f"those of {show(found[:12])}…",
                todo="copy the bundle again",
            )


def check_external(folder: Path, manifest: Manifest, external: Path | None) -> None:
    """Raise InputError about a folder of weights for a bundle that holds its own: files there would go unchecked."""
    if external is not None and not manifest.external_weights:
        raise InputError(
            f"weights folder {external}",
            expected=f"none: {folder} holds its weights",
            found="one",
            todo="leave it out",
        )


def check_file(path: Path, entry: FileEntry, check: Check, on_bytes: Callable[[int], None] | None = None) -> None:
    """Compare a file with its entry. Raises DamageError that names it, InputError when it cannot be read."""
    try:
        _compare(path, entry, check, on_bytes)
    except OSError as error:
        raise InputError(
            str(path),
            expected="a readable file",
            found=error.strerror or "an error",
            todo="make it readable, or copy the bundle again",
        ) from error


def check_shard(folder: Path, entry: FileEntry, check: Check, on_bytes: Callable[[int], None] | None = None) -> None:
    """Compare a shard that a bundle only names with its entry. Raises as `check_file`."""
    try:
        check_file(folder / entry.path, entry, check, on_bytes)
    except DamageError as error:
        todo = "name the folder of the shards that the bundle was exported from, or export again with those in this one"
        raise DamageError(error.subject, expected=error.expected, found=error.found, todo=todo) from error
    except InputError as error:
        todo = "make it readable, or name another folder of the shards"
        raise InputError(error.subject, expected=error.expected, found=error.found, todo=todo) from error


def _compare(path: Path, entry: FileEntry, check: Check, on_bytes: Callable[[int], None] | None) -> None:
    try:
        status = path.stat()
    except OSError as error:  # `is_file` takes others for a missing file as well, from Python 3.14 on
        if error.errno not in _GONE:
            raise
        status = None
    if status is None or not stat.S_ISREG(status.st_mode):
        raise DamageError(str(path), expected="a file of the bundle", found="none", todo=_AGAIN)
    size = status.st_size
    if size != entry.size:
        raise DamageError(str(path), expected=f"{entry.size} bytes", found=f"{size}", todo=_AGAIN)
    if check == "digests" or size <= _CHEAP_BYTES:
        _, digest = file_digest(path, on_bytes=on_bytes)
        if digest != entry.sha256:
            raise DamageError(str(path), expected=f"sha256 {entry.sha256[:12]}…", found=f"{digest[:12]}…", todo=_AGAIN)
