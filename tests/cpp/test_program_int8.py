"""elastic_generate on a bundle in eight bits: same weights, same choice, same greedy ids as Python."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

import elastic_runtime
from elastic_runtime import Bundle, Request, iter_weights
from elastic_runtime.errors import InputError
from int8_demo import BUDGETS, CONTEXT, export_demo

PROMPT = [1, 2, 3, 65, 66]
NEW = 100


@pytest.fixture
def bundle(int8_bundle: Bundle) -> Bundle:
    return int8_bundle


@pytest.fixture(scope="module")
def both(int8_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same, the small one in bf16 as well."""
    out = tmp_path_factory.mktemp("both") / "bundle"
    shutil.copytree(int8_bundle.path, out)
    export_demo(out, ("small",), add=True)
    return Bundle.open(out)


def output_of(*arguments: object) -> str:
    done = subprocess.run([str(argument) for argument in arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", BUDGETS)
def test_every_weight_is_cut_alike(program: Path, bundle: Bundle, name: str) -> None:
    budget = bundle.budget(name)
    assert budget.quantisation == "int8"
    assert budget.weights is not None
    recipe = bundle.recipe(budget)
    assert {item.dtype for item in recipe.inputs} == {"int8", "fp32", "bf16"}
    weights = iter_weights(recipe, (bundle.path / budget.weights).parent)
    wanted = [f"{hashlib.sha256(array.tobytes()).hexdigest()}  {weight}" for weight, array in weights]
    printed = output_of(program, bundle.path, "--check", "--budget", name, "--weights-digest")
    assert sorted(printed.splitlines()) == sorted(wanted)


@pytest.mark.timeout(900)
def test_the_choice_is_explained_alike(program: Path, bundle: Bundle) -> None:
    needs = [need.total for r in bundle.choose(vram=1 << 30).reckonings if (need := r.need) is not None]
    assert len(needs) == len(BUDGETS)
    for vram in {at + step for at in needs for step in (-1, 0)}:
        printed = output_of(program, bundle.path, "--explain", "--device", "cpu", "--vram", vram)
        assert printed == bundle.choose(vram=vram).explain() + "\n"


@pytest.mark.timeout(900)
def test_a_name_stands_for_the_same_form(program: Path, both: Bundle) -> None:
    def digests(name: str) -> str:
        return output_of(program, both.path, "--budget", name, "--weights-digest", "--device", "cpu")

    assert [budget.name for budget in both.budgets] == ["medium.int8", "small", "small.int8"]
    plain, eight = digests("small.bf16"), digests("small.int8")
    assert digests("small") == plain != eight
    assert len(eight.splitlines()) == len(both.recipe(both.budget("small.int8")).inputs)
    asked = [program, both.path, "--budget", "small.fp16", "--ids", "1"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    with pytest.raises(InputError) as caught:
        both.budget("small.fp16")
    assert (done.returncode, done.stderr) == (2, f"elastic_generate: {caught.value}\n")


@pytest.mark.timeout(900)
def test_the_choice_between_forms_is_explained_alike(program: Path, both: Bundle) -> None:
    needs = [need.total for r in both.choose(vram=1 << 30).reckonings if (need := r.need) is not None]
    assert len(needs) == 3
    for vram in {at + step for at in needs for step in (-1, 0)}:
        printed = output_of(program, both.path, "--explain", "--device", "cpu", "--vram", vram)
        assert printed == both.choose(vram=vram).explain() + "\n"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", BUDGETS)
def test_greedy_ids_of_the_twin_equal_python(host_program: Path, bundle: Bundle, name: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from elastic_runtime.ort.twin import main

    twin = tmp_path / "twin.onnx"
    assert main([str(bundle.path / bundle.budget(name).model), str(twin)]) == 0
    inputs = onnx.load(twin).graph.input
    assert onnx.TensorProto.INT8 in {value.type.tensor_type.elem_type for value in inputs}
    options = (
        "--ignore-eos",
        "--print-ids",
        "--max-new",
        NEW,
        "--context",
        CONTEXT,
        "--ids",
        ",".join(map(str, PROMPT)),
    )
    printed = output_of(host_program, bundle.path, "--device", "cpu", "--budget", name, "--model", twin, *options)
    ids = [int(line) for line in printed.split()]
    assert ids == _greedy(bundle, name)
    assert len(set(ids)) > 10


def _greedy(bundle: Bundle, name: str) -> list[int]:
    request = Request(budget=name, device="cpu", weights="stored", context=CONTEXT)
    with elastic_runtime.open(bundle.path, request) as session:
        ids = [int(session.prefill([PROMPT])[0].argmax())]
        while len(ids) < NEW:
            ids.append(int(session.decode([ids[-1]])[0].argmax()))
    return ids
