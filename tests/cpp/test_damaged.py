"""Damaged bundles in eight bits: elastic_generate answers what the Python runtime does, word for word."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import elastic_runtime
from elastic_runtime import Bundle, Request, iter_weights
from elastic_runtime.errors import REFUSED, ElasticError, InputError
from elastic_runtime.format.manifest_reader import DamageError
from elastic_runtime.format.seal import EMPTY, seal
from elastic_runtime.ort.open_onnx import WeightForm

Recipe = dict[str, Any]


class Damaged:
    """A copy of a bundle and the files of its small budget; what is changed is listed anew, so that it is read."""

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        shutil.copytree(bundle.path, folder)
        budget = bundle.budget("small")
        assert budget.weights is not None
        self.folder, self.budget, self.recipe = folder, budget.name, folder / budget.weights
        matrix = next(part for item in bundle.recipe(budget).inputs for part in item.parts if part.dtype == "int8")
        self.shard = (self.recipe.parent / matrix.file).resolve()

    def change(self, edit: Callable[[Recipe], object]) -> None:
        """Change the parsed recipe."""
        data = json.loads(self.recipe.read_text("utf-8"))
        edit(data)
        self.recipe.write_text(json.dumps(data), "utf-8")

    def change_manifest(self, edit: Callable[[Recipe], object]) -> None:
        """Change the parsed manifest and seal it again."""
        path = self.folder / "manifest.json"
        manifest = json.loads(path.read_text("utf-8")) | {"seal": EMPTY}
        edit(manifest)
        path.write_text(seal(json.dumps(manifest)), "utf-8")

    def list_anew(self) -> None:
        """Sizes and digests of the manifest, of what lies there now."""

        def measure(manifest: Recipe) -> None:
            for entry in manifest["files"]:
                data = (self.folder / entry["path"]).read_bytes()
                entry |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

        self.change_manifest(measure)


def _first(data: Recipe) -> Recipe:
    """Its first matrix in eight bits."""
    found: Recipe = next(item for item in data["inputs"].values() if item["dtype"] == "int8")
    return found


def _edit(**fields: object) -> Callable[[Damaged], None]:
    return lambda bundle: bundle.change(lambda data: _first(data).update(fields))


def _header(change: Callable[[bytes], bytes]) -> Callable[[Damaged], None]:
    """Other bytes in place of the length and the header of the quantised file, its end where it was."""

    def damage(bundle: Damaged) -> None:
        data = bundle.shard.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        bundle.shard.write_bytes(change(data[:end]) + data[end:])

    return damage


def _of_another(header: bytes) -> bytes:
    parent = json.loads(header[8:])["__metadata__"]["parent"].encode()
    return header.replace(parent, b"0123456789ab" * 5 + b"cdef")


def _of_nobody(header: bytes) -> bytes:
    return header.replace(b'"parent"', b'"mother"')


DAMAGES: dict[str, Callable[[Damaged], object]] = {
    "a later version": lambda bundle: bundle.change(lambda data: data.update(schema="elastic-weights/3")),
    "no version for int8": lambda bundle: bundle.change(lambda data: data.pop("schema")),
    "a field more": _edit(scale=1),
    "a field less": lambda bundle: bundle.change(lambda data: _first(data).pop("runs")),
    "a field at the top": lambda bundle: bundle.change(lambda data: data.update(scales={})),
    "no inputs": lambda bundle: bundle.change(lambda data: data.pop("inputs")),
    "overlapping runs": _edit(parent_shape=[8, 4], shape=[6, 4], runs=[[[0, 4], [3, 2]], [[0, 4]]]),
    "another sum": _edit(parent_shape=[8, 4], shape=[6, 4], runs=[[[0, 4]], [[0, 4]]]),
    "an axis less": _edit(parent_shape=[8, 4], shape=[8], runs=[[[0, 8]]]),
    "a negative offset": _edit(offset=-1),
    "an offset that is no integer": _edit(offset=8.5),
    "a huge tensor": _edit(offset=2**53 - 1),
    "another dtype": _edit(dtype="fp8"),
    "a way out of the bundle": _edit(file="../../w.safetensors"),
    "a file that is not there": _edit(file="../weights/none.safetensors"),
    "a folder for a file": _edit(file="../weights"),
    "a tensor beyond the file": _edit(offset=2**40),
    "a file cut short": lambda bundle: bundle.shard.write_bytes(bundle.shard.read_bytes()[:-1]),
    "a file of nothing": lambda bundle: bundle.shard.write_bytes(b""),
    "a header cut short": lambda bundle: bundle.shard.write_bytes(bundle.shard.read_bytes()[:100]),
    "an absurd header": _header(lambda header: b"\xff" * 8 + header[8:]),
    "a header of bytes": _header(lambda header: header[:8] + b"\xff" * (len(header) - 8)),
    "another parent": _header(_of_another),
    "no parent": _header(_of_nobody),
}


def _budget(**fields: object) -> Callable[[Recipe], None]:
    return lambda manifest: manifest["budgets"][0].update(fields)


def _renamed(data: Recipe) -> None:
    data["inputs"] = {name.replace("norm_f", "norm_g"): item for name, item in data["inputs"].items()}


def _a_row_less(data: Recipe) -> None:
    item = _first(data)
    item["shape"][0] -= 1
    item["runs"][0][-1][1] -= 1


def _of_other_halves(data: Recipe) -> None:
    next(item for item in data["inputs"].values() if item["dtype"] == "bf16")["dtype"] = "fp16"


#: Sound recipes, but of another model.
OTHERS: dict[str, Callable[[Recipe], object]] = {
    "a tensor less": lambda data: data["inputs"].popitem(),
    "a tensor more": lambda data: data["inputs"].update(more=_first(data)),
    "a tensor of another name": _renamed,
    "no tensors": lambda data: data["inputs"].clear(),
    "a row less": _a_row_less,
    "halves of another kind": _of_other_halves,
}


MANIFESTS: dict[str, Callable[[Recipe], object]] = {
    "a later version": lambda manifest: manifest.update(schema="elastic-bundle/2"),
    "a version that is a number": lambda manifest: manifest.update(schema=1),
    "a field of a later one": lambda manifest: manifest.update(adapters=[]),
    "a field of a budget less": lambda manifest: manifest["budgets"][0].pop("model"),
    "no budgets": lambda manifest: manifest.update(budgets=[]),
    "a budget twice": lambda manifest: manifest["budgets"].append(manifest["budgets"][0]),
    "a file that is not listed": _budget(model="small/other.onnx"),
    "a file listed twice": lambda manifest: manifest["files"].append(manifest["files"][0]),
    "another form": _budget(quantisation="int4"),
    "weights that are a number": _budget(weights=5),
    "layers that do not add up": _budget(layers=1),
    "a digest of other signs": lambda manifest: manifest["files"][0].update(sha256="g" * 64),
}


def _answer_of_python(bundle: Damaged) -> tuple[int, str]:
    try:
        opened = Bundle.open(bundle.folder)
        for _ in iter_weights(opened.recipe(opened.budget(bundle.budget)), bundle.recipe.parent):
            pass
    except ElasticError as error:
        return error.exit_code, f"elastic_generate: {error}\n"
    return 0, ""


def _answer_of_cpp(program: Path, bundle: Damaged, *options: object) -> tuple[int, str]:
    command = [program, bundle.folder, *(options or ("--budget", bundle.budget, "--weights-digest", "--device", "cpu"))]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_answered_alike(program: Path, int8_bundle: Bundle, name: str, tmp_path: Path) -> None:
    bundle = Damaged(int8_bundle, tmp_path / "bundle")
    DAMAGES[name](bundle)
    bundle.list_anew()
    code, said = _answer_of_python(bundle)
    assert code == 2, "the damage must be one"
    assert _answer_of_cpp(program, bundle) == (code, said)


@pytest.fixture(scope="module")
def twin(int8_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small budget's model as onnxruntime's CPU runs it."""
    pytest.importorskip("onnx")
    from elastic_runtime.ort.twin import main

    path = tmp_path_factory.mktemp("twin") / "small.onnx"
    assert main([str(int8_bundle.path / int8_bundle.budget("small").model), str(path)]) == 0
    return path


@pytest.mark.timeout(900)
@pytest.mark.parametrize("form", ["float32", "stored"])
@pytest.mark.parametrize("name", OTHERS)
def test_weights_of_another_model_are_answered_alike(
    host_program: Path, int8_bundle: Bundle, twin: Path, name: str, form: WeightForm, tmp_path: Path
) -> None:
    bundle = Damaged(int8_bundle, tmp_path / "bundle")
    bundle.change(OTHERS[name])
    bundle.list_anew()
    with pytest.raises(InputError) as caught:
        elastic_runtime.open(bundle.folder, Request(bundle.budget, device="cpu", weights=form, context=64)).close()
    options = ("--budget", bundle.budget, "--device", "cpu", "--model", twin, "--ids", 1, "--context", 64)
    told = str(caught.value).replace("Export", f"Name the twin of budget {bundle.budget!r}, or export")
    assert _answer_of_cpp(host_program, bundle, *options) == (2, f"elastic_generate: {told}\n")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", MANIFESTS)
def test_a_wrong_manifest_is_answered_alike(program: Path, int8_bundle: Bundle, name: str, tmp_path: Path) -> None:
    bundle = Damaged(int8_bundle, tmp_path / "bundle")
    bundle.change_manifest(MANIFESTS[name])
    code, said = _answer_of_python(bundle)
    assert code == 2, "the damage must be one"
    assert _answer_of_cpp(program, bundle) == (code, said)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("change", ["missing", "shorter", "other"])
def test_a_file_that_is_not_the_listed_one_is_answered_alike(
    program: Path, int8_bundle: Bundle, change: str, tmp_path: Path
) -> None:
    bundle = Damaged(int8_bundle, tmp_path / "bundle")
    data = bundle.recipe.read_bytes()
    bundle.recipe.unlink()
    if change != "missing":
        bundle.recipe.write_bytes(data[:-1] + (b"" if change == "shorter" else b" "))
    code, said = _answer_of_python(bundle)
    assert code == 1, "the damage must be one"
    assert _answer_of_cpp(program, bundle) == (code, said)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", [None, 100], ids=["missing", "shorter"])
def test_a_shard_outside_that_is_not_the_named_one_is_answered_alike(
    program: Path, int8_bundle: Bundle, size: int | None, tmp_path: Path
) -> None:
    """Copying the bundle again would not bring it."""
    bundle, hub = Damaged(int8_bundle, tmp_path / "bundle"), tmp_path / "hub"
    path = bundle.shard.relative_to(bundle.folder.resolve()).as_posix()

    def leave_outside(manifest: Recipe) -> None:
        [shard] = [entry for entry in manifest["files"] if entry["path"] == path]
        manifest["files"].remove(shard)
        manifest["external_weights"] = [shard | {"path": bundle.shard.name}]

    bundle.change_manifest(leave_outside)
    hub.mkdir()
    if size is not None:
        (hub / bundle.shard.name).write_bytes(bundle.shard.read_bytes()[:size])
    with pytest.raises(DamageError, match="Name the folder of the shards that the bundle was exported from") as caught:
        Bundle.open(bundle.folder, external=hub)
    options = ("--budget", bundle.budget, "--weights-digest", "--device", "cpu", "--weights-folder", hub)
    assert _answer_of_cpp(program, bundle, *options) == (1, f"elastic_generate: {caught.value}\n")


@pytest.mark.timeout(900)
def test_what_is_listed_anew_is_read(program: Path, int8_bundle: Bundle, tmp_path: Path) -> None:
    """So that the answers above are about the damage."""
    bundle = Damaged(int8_bundle, tmp_path / "bundle")
    bundle.list_anew()
    assert _answer_of_python(bundle) == _answer_of_cpp(program, bundle) == (0, "")


def test_refusals_of_the_system_come_with_the_same_advice() -> None:
    """But those of writing, which C++ does not know."""
    source = (Path(__file__).parents[2] / "engines" / "cpp" / "src" / "files.cpp").read_text("utf-8")
    told: dict[int, str] = {}
    for block in source.partition("std::string advice_on")[2].partition("default:")[0].split('";'):
        names, _, todo = block.partition('return "')
        told |= {getattr(errno, name): todo for name in re.findall(r"case (E\w+):", names)}
    assert told == {number: todo for number, todo in REFUSED.items() if number not in (errno.EROFS, errno.EMLINK)}
