"""Writing a bundle so that nobody ever sees half of one.

1. Everything is written into a locked folder beside the output (staging.py); digests of the checkpoint's files are
   computed meanwhile (digests.py).
2. `finish` digests what else is there, writes the manifest last, brings all to the disk,
3. and exchanges the folder with the output in one step (exchange.py); the old one is removed afterwards, its files
   beside the output (beside.py) before.

A kill before step 3 leaves the old bundle as it was, one after it leaves the new one; the folder beside it is
removed by the next export. Whatever else ends the `with` block removes it at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from elastic_export.bundle.add_rules import (
    check_same,
    check_same_graph,
    check_same_shard,
    graph_files,
    is_graph_file,
    options_of,
    staying_engines,
    unlike_forms,
)
from elastic_export.bundle.adding import carry_over, damaged
from elastic_export.bundle.beside import failed_report, own_path, run_record_file
from elastic_export.bundle.digests import LEAST_REMEMBERED, Digests, entry_at_hand
from elastic_export.bundle.entries import check_readable
from elastic_export.bundle.exchange import flush_tree, publish
from elastic_export.bundle.output import check_output, explain_os_error, os_errors_explained
from elastic_export.bundle.place import duplicate, link_same, place
from elastic_export.bundle.staging import Stage, recover, running
from elastic_export.bundle.turns import forget_turn, turn
from elastic_export.bundle.unfinished import Unfinished, tell_what_is_left
from elastic_export.progress import Gauge
from elastic_runtime.errors import BuildError, InputError, InternalError
from elastic_runtime.format.interface import OpsMode
from elastic_runtime.format.manifest import EngineEntry, FileEntry, Manifest, ordered
from elastic_runtime.format.manifest_reader import NAME

Say = Callable[[str], None]
_AGAIN = "export again, when nobody else exports to that place"
Document = Mapping[str, Any]


class BundleWriter:
    """A bundle in the making.

        with BundleWriter(output) as writer:
            writer.place(shard, f"weights/{shard.name}")
            (writer.folder("6b") / "model.onnx").write_bytes(...)
            writer.finish(manifest)

    Args:
        output: the bundle's folder.
        force: replace a folder that is not a bundle.
        add: keep what a bundle there already has (add_rules.py); where there is none this changes nothing.
        protect: folders that are never replaced.
        say: hears of what takes long or is unusual.
        digests: computes the digests, until the block ends; one that remembers nothing unless given.

    Raises:
        InputError: from the `with` statement (`check_output`) or `finish` (`add_to`).
        BuildError: the disk is full, wherever in the block that shows; what stands at the output has become what may
            not be replaced; or with `add` another export runs or ran to the same place, of which one would be lost.
    """

    def __init__(
        self,
        output: Path,
        *,
        force: bool = False,
        add: bool = False,
        protect: Iterable[Path] = (),
        say: Say = lambda text: None,
        digests: Digests | None = None,
    ) -> None:
        self._named, self._force, self._add, self._protect, self._say = output, force, add, tuple(protect), say
        self._digests = digests or Digests()
        self._known: dict[str, Future[FileEntry]] = {}
        self._external: dict[str, Future[FileEntry]] = {}
        self._sources: dict[str, Future[FileEntry]] = {}
        self._kept: dict[str, FileEntry] = {}
        self._stage: Stage | None = None
        self.output = output
        self.previous: Manifest | None = None

    def __enter__(self) -> BundleWriter:
        with os_errors_explained(self._named):
            place = own_path(self._named)
            recover(place, self._say)
            forget_turn(place)
            if self._add and (other := running(place)):
                raise self._not_alone(f"another export, at work in {other}")
            self.output, self.previous = self._look()
            self._stage = Stage(self.output)
            self._unfinished = Unfinished(self.output, self._stage.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._digests.close()
        worked_beside = self._unfinished.close()
        if self._stage is not None:
            self._stage.close()
        if error is not None and worked_beside:
            tell_what_is_left(self.output, self._say)
        if isinstance(error, OSError) and (shown := explain_os_error(error, self._named, rights=False)):
            raise shown from error

    @property
    def path(self) -> Path:
        """The folder that will be the bundle."""
        assert self._stage is not None, "use the writer in a with statement"
        return self._stage.path

    def folder(self, name: str) -> Path:
        """A folder in the bundle, made if it is not there."""
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def place(self, source: Path, relative: str) -> None:
        """Link, clone or copy a file of the checkpoint into the bundle and begin its digest (place.py)."""
        old = self.previous.file(relative) if self.previous else None
        self._known[relative] = self._place(source, relative, trust=True, old=old)

    def name_external(self, source: Path) -> None:
        """Record name, size and digest of a shard that stays outside the bundle."""
        self._external[source.name] = self._digests.of_source(source.resolve(strict=True), source.name, trust=True)

    def watch(self, source: Path) -> None:
        """Begin the digest of a shard of which the bundle holds parts only."""
        self._sources[source.name] = self._digests.of_source(source.resolve(strict=True), source.name, trust=True)

    def sources(self, shards: Iterable[Path]) -> tuple[FileEntry, ...]:
        """Entries of shards of the checkpoint, however they were handed over."""
        handed = {**self._known, **self._external, **self._sources}
        names = (shard.name for shard in shards)
        return tuple((handed.get(f"weights/{name}") or handed[name]).result() for name in names)

    def keep(self, entry: FileEntry, relative: str) -> None:
        """Take a file of the older bundle, whose bytes have just been found to be those of its entry, as `relative`.

        `finish` looks once more, unless it is large: another export to the same place may have exchanged the older
        bundle since.
        """
        source, target = self.output / entry.path, self.folder(str(Path(relative).parent)) / Path(relative).name
        try:
            duplicate(source, target)
        except FileNotFoundError as error:
            raise damaged(source, "none any more", _AGAIN) from error
        self._kept[relative] = replace(entry, path=relative)
        large = entry.size >= LEAST_REMEMBERED and target.stat().st_size == entry.size
        known = entry_at_hand(self._kept[relative]) if large else self._digests.of_ours(target, relative)
        self._known[relative] = known

    def digested(self, file: Path, digest: str) -> None:
        """Spare `finish` reading a file of the stage whose bytes were digested as they were written."""
        relative = file.relative_to(self.path).as_posix()
        self._known[relative] = entry_at_hand(FileEntry(relative, file.stat().st_size, digest))

    def beside(self, name: str) -> Path:
        """A folder for what an export that does not end leaves to the next one (unfinished.py)."""
        return self._unfinished.folder(name)

    def left_beside(self, name: str) -> Path | None:
        """That folder where an export before this one left it, None where none did."""
        return self._unfinished.left(name)

    def adopt(self, source: Path, relative: str, digest: str | None) -> None:
        """Take a file of a folder that `beside` gave; `finish` reads it where its sha256 is not known.

        Raises:
            InputError: what is added to has another file of that path. Told now, as much work would follow.
        """
        target = self.folder(str(Path(relative).parent)) / Path(relative).name
        self._unfinished.take(source, target)
        if digest is not None:
            self.digested(target, digest)
        if self._add and self.previous is not None and self.previous.file(relative) is not None:
            check_same_shard(self.previous, self._entry(relative).result())

    def spend(self, source: Path) -> None:
        """Let a file of such a folder go with what is adopted from it: nobody needs it once the bundle is published."""
        self._unfinished.spend(source)

    def keep_all(self, files: Iterable[FileEntry]) -> None:
        """Take files of the older bundle under their own names (`keep`)."""
        for entry in files:
            self.keep(entry, entry.path)

    def gauge(self) -> Gauge:
        """How far the digests are that `finish` waits for."""
        return self._digests.gauge()

    def check_addable(self, manifest: Manifest) -> None:
        """Whether a manifest with these checkpoint and options may be added, before anything is built."""
        if self._add and self.previous is not None:
            check_same(self.previous, replace(manifest, files=(), external_weights=()))

    def kept_engines(self, budget: str, remade: Collection[tuple[str, int, OpsMode]]) -> tuple[EngineEntry, ...]:
        """Engines of a budget that stay beside those made now for these (target, context, ops mode)."""
        return staying_engines(self.previous, budget, remade) if self._add and self.previous is not None else ()

    def check_graph(self, budget: str, remade: Collection[tuple[str, int, OpsMode]]) -> None:
        """Whether the engines of a budget that stay were built from the ONNX file and weights that its folder has now:
        asked as soon as those are written. Raises InputError.
        """
        if self.previous is None or not self.kept_engines(budget, remade):
            return
        old = graph_files(self.previous.files, budget)
        check_same_graph(self.previous, budget, [entry for entry in self.graph_entries(budget) if entry.path in old])

    def graph_entries(self, budget: str) -> list[FileEntry]:
        """Entries of a budget's ONNX file and of what says or holds its weights, once they are written."""
        present = [path for path in self.folder(budget).iterdir() if path.is_file()]
        names = sorted(path.relative_to(self.path).as_posix() for path in present)
        return [self._entry(name).result() for name in names if is_graph_file(name, budget)]

    def finish(self, manifest: Manifest) -> Manifest:
        """Complete `manifest` with the files, write it and publish the bundle; returns what was written."""
        assert self._stage is not None, "use the writer in a with statement"
        self._unfinished.clear(published=False)
        external = (*manifest.external_weights, *(entry.result() for entry in self._external.values()))
        manifest = replace(manifest, files=self._entries(), external_weights=external)
        for entry in manifest.files:
            if self._kept.get(entry.path, entry) != entry:
                raise damaged(self.output / entry.path, "another one, by another export", _AGAIN)
        self._digests.check_unchanged()
        self._link_unchanged(manifest.files)
        if self._add and self.previous is not None:
            self._check_there()  # else what another export put there would be told as damage
            manifest = carry_over(self.previous, manifest, self.output, self.path, self._keep_file, self._say)
        manifest = ordered(replace(manifest, options=options_of(manifest)))
        for remark in unlike_forms(manifest):
            self._say(remark)
        text = manifest.to_json()
        check_readable(text)
        (self.path / NAME).write_text(text, "utf-8")
        flush_tree(self.path)
        with turn(self.output):
            self._check_there()
            # What tells of an export before this one goes first: whatever happens now, it never stands beside this
            # bundle.
            for path in (failed_report(self.output), run_record_file(self.output)):
                path.unlink(missing_ok=True)
            publish(self._stage.path, self.output, self._stage.aside, self._say)
        self._unfinished.clear(published=True)
        return manifest

    def fail(self, report: Mapping[str, object]) -> Path:
        """Write the report of a failed verification beside the output; the caller raises, and no bundle appears."""
        return self._write_beside(failed_report(self.output), report)

    def record(self, document: Document) -> Document:
        """Write the record of the run that has just published the bundle, and return it; where that fails the bundle
        stays without one.
        """
        path = run_record_file(self.output)
        try:
            self._write_beside(path, document)
        except OSError as error:
            self._say(f"{path}: not written: {error.strerror or error}; the bundle is complete")
        return document

    def _look(self) -> tuple[Path, Manifest | None]:
        return check_output(self._named, force=self._force, protect=self._protect)

    def _check_there(self) -> None:
        """Whether what stands at the output, and goes, may be replaced still, and is in here for `add`."""
        try:
            _, there = self._look()
        except InputError as error:  # it was right when the export began: no fault of the request
            raise BuildError(error.subject, expected=error.expected, found=error.found, todo=error.todo) from error
        if self._add and there != self.previous:
            gone = "the bundle gone that stood there"
            raise self._not_alone(gone if there is None else "a bundle that another one published meanwhile")

    def _not_alone(self, found: str) -> BuildError:
        expected = "with --add nobody else at work there"
        todo = f"{_AGAIN}; exports to places of their own become one by elastic-export merge"
        return BuildError(f"output {self._named}", expected=expected, found=found, todo=todo)

    def _write_beside(self, path: Path, document: Mapping[str, object]) -> Path:
        self.path.mkdir(exist_ok=True)  # the stage has become the bundle, where there was none before it
        written = self.path / path.name  # goes with the stage if the next step does not come
        written.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", "utf-8")
        written.replace(path)
        return path

    def _place(self, source: Path, relative: str, *, trust: bool, old: FileEntry | None) -> Future[FileEntry]:
        return place(
            source,
            self.path,
            relative,
            digests=self._digests,
            trust=trust,
            say=self._say,
            old=old,
            old_folder=self.output,
        )

    def _entries(self) -> tuple[FileEntry, ...]:
        files = (Path(folder, name) for folder, _, names in os.walk(self.path) for name in names)
        entries = []
        for file in sorted(files):
            relative = file.relative_to(self.path).as_posix()
            if file.is_symlink() or not file.is_file():
                raise InternalError(f"bundle file {relative}", expected="a plain file", found="a link or a device")
            entries.append(self._entry(relative))
        return tuple(entry.result() for entry in entries)

    def _entry(self, relative: str) -> Future[FileEntry]:
        """Entry of a file of the stage, read once: nothing is edited after it is written."""
        if relative not in self._known:
            self._known[relative] = self._digests.of_ours(self.path / relative, relative)
        return self._known[relative]

    def _link_unchanged(self, files: Iterable[FileEntry]) -> None:
        for entry in files:
            before = self.previous.file(entry.path) if self.previous else None
            target, old = self.path / entry.path, self.output / entry.path
            if before is not None and old.is_file() and not old.samefile(target):
                link_same(old, target, entry, before)

    def _keep_file(self, old: Path, relative: str) -> FileEntry:
        """Take a file of the older bundle that nobody has looked at yet."""
        return self._place(old, relative, trust=False, old=None).result()
