"""elastic_generate on the demo bundle: same weights, same choice, same greedy ids as the Python side says.

The host backend runs on the library of the Python package, declared by onnx_sdk/; ELASTIC_ONNXRUNTIME_ROOT names
another one with its own headers."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_runtime import Bundle, InputError, Tokenizer, iter_weights
from elastic_runtime.format.seal import EMPTY, seal
from elastic_runtime.ort.open_onnx import open_onnx

GIB = 1 << 30


PROMPT = "Once upon a <|user|>time"


IDS = [*b"Once upon a ", 260, *b"time"]


def _run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [str(argument) for argument in arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.mark.timeout(900)
def test_every_weight_is_cut_alike(program: Path, demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    for budget in bundle.budgets:
        assert budget.weights is not None
        weights = iter_weights(bundle.recipe(budget), (demo_bundle / budget.weights).parent)
        wanted = [f"{hashlib.sha256(array.tobytes()).hexdigest()}  {name}" for name, array in weights]
        done = _run(program, demo_bundle, "--budget", budget.name, "--weights-digest")
        assert sorted(done.stdout.splitlines()) == sorted(wanted)


def test_the_choice_is_explained_alike(program: Path, demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    for vram in (GIB // 2, 645_000_000, GIB):
        for context in (1, 2048, 4096):
            done = _run(program, demo_bundle, "--explain", "--device", "cpu", "--vram", vram, "--context", context)
            assert done.stdout == bundle.choose(vram=vram, context=context).explain() + "\n"
        done = _run(program, demo_bundle, "--explain", "--device", "cpu", "--vram", vram)
        assert done.stdout == bundle.choose(vram=vram).explain() + "\n"


def test_narrow_models_are_refused_on_the_cpu(host_program: Path, demo_bundle: Path) -> None:
    done = _run(host_program, demo_bundle, "--budget", "small", "--device", "cpu", "--ids", "1")
    assert done.returncode == 2
    assert "expected a float32 model for onnxruntime's CPU, found bf16. Name its float32 twin" in done.stderr


@pytest.mark.timeout(900)
@pytest.mark.parametrize("budget", ["large", "medium", "small"])
def test_greedy_ids_equal_onnxruntime_in_python_whatever_the_cut(
    host_program: Path, demo_bundle: Path, twins: Path, budget: str
) -> None:
    wanted = _greedy(Bundle.open(demo_bundle), twins / f"{budget}.onnx", budget, IDS, 200)
    common = (host_program, demo_bundle, "--device", "cpu", "--budget", budget, "--model", twins / f"{budget}.onnx")
    for max_tokens, count in ((64, 200), (5, 50), (1, 50)):  # a state that a cut made wrong tells from the first on
        options = ("--max-tokens", max_tokens, "--max-new", count, "--context", 256, "--ignore-eos", "--print-ids")
        done = _run(*common, *options, "--prompt", PROMPT)
        assert [int(line) for line in done.stdout.split()] == wanted[:count], done.stderr


def _greedy(bundle: Bundle, model: Path, name: str, prompt: list[int], count: int) -> list[int]:
    ids, made = prompt, list[int]()
    for logits in _calls(bundle, model, name, made, ids):
        made.append(int(logits.argmax()))
        if len(made) == count:
            break
    return made


def _calls(bundle: Bundle, model: Path, name: str, made: list[int], prompt: list[int]) -> Iterator[Any]:
    """Logits after the prompt, and after each token that the caller puts into `made`."""
    ort = pytest.importorskip("onnxruntime")
    budget = bundle.budget(name)
    assert budget.weights is not None
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    weights = dict(iter_weights(bundle.recipe(budget), (bundle.path / budget.weights).parent))
    feed: dict[str, Any] = {
        n: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(a.view("u2"), 16) for n, a in weights.items()
    }
    states = [i for i in session.get_inputs() if i.name not in feed and "." in i.name]
    for state in states:
        shape = [{"B": 1, "S": 256}.get(d, d) for d in state.shape]
        feed[state.name] = ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
    outputs = ["logits", *(s.name.replace(".", "_out.", 1) for s in states)]
    position, ids = 0, prompt
    while True:
        tokens = np.array([ids], np.int64)
        given = {"input_ids": tokens, "position": np.array([position]), "length": np.array([len(ids)])}
        feed |= {key: ort.OrtValue.ortvalue_from_numpy(value) for key, value in given.items()}
        logits, *new = session.run_with_ort_values(outputs, feed)
        feed |= {state.name: value for state, value in zip(states, new, strict=True)}
        position += len(ids)
        yield logits.numpy()[0]
        ids = [made[-1]]


BAD = [
    (["--budget", "tiny", "--ids", "1"], "budget 'tiny': expected one of large, medium, small, found no such budget"),
    (["--vram", "0", "--explain"], "--vram: expected a size such as 12GiB or 16GB, above 0, found '0'."),
    (["--ids", "1,x"], "--ids: expected token ids divided by commas, found x."),
    (["--prompt", "a", "--ids", "1"], "prompt: expected one of --prompt and --ids, found both."),
    (["--frobnicate"], "--frobnicate: expected a known option, found another one. See --help."),
    (["--context"], "--context: expected a value behind it, found the end of the command."),
    (["--temperature", "warm", "--ids", "1"], "--temperature: expected a number, found warm."),
    (["--device", "tpu", "--ids", "1"], "--device: expected auto, cpu or gpu, found tpu."),
    (
        ["--device", "cpu", "--explain"],
        "--explain: expected a GPU, or --vram with the memory to reckon with, found neither",
    ),
]


@pytest.mark.parametrize(("arguments", "wanted"), BAD)
def test_bad_requests_end_with_2_and_a_sentence(
    program: Path, demo_bundle: Path, arguments: list[str], wanted: str
) -> None:
    done = _run(program, demo_bundle, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"elastic_generate: {wanted}")
    assert done.stderr.count("\n") == 1


BAD_RUNS = [
    (["--ids", "1,264"], "token ids: expected 0 to 263, found 264."),
    (["--ids", "1,2,3", "--context", "2"], "prompt: expected at most 2 tokens, the context, found 3."),
    (["--ids", "1", "--top-k", "-1"], "top_k: expected 0 (no limit) or more, found -1."),
    (["--ids", "1", "--top-p", "1.5"], "top_p: expected a number above 0, up to 1, found 1.5."),
    (["--ids", "1", "--stop", ""], "stop string: expected at least one character, found none."),
]


@pytest.mark.parametrize(("arguments", "wanted"), BAD_RUNS)
def test_bad_runs_end_with_2_and_a_sentence(
    host_program: Path, demo_bundle: Path, twins: Path, arguments: list[str], wanted: str
) -> None:
    common = (demo_bundle, "--device", "cpu", "--budget", "small", "--model", twins / "small.onnx")
    done = _run(host_program, *common, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"elastic_generate: {wanted}")


def test_a_twin_that_is_none_is_named(host_program: Path, demo_bundle: Path, twins: Path, tmp_path: Path) -> None:
    (text := tmp_path / "text.onnx").write_text("no model")
    run = (host_program, demo_bundle, "--device", "cpu", "--ids", "1", "--budget")
    done = _run(*run, "small", "--model", tmp_path / "none.onnx")
    missing = "expected the twin of budget 'small', found no such file. Name it (elastic_runtime.ort.twin makes it)."
    assert (done.returncode, done.stderr) == (2, f"elastic_generate: {tmp_path / 'none.onnx'}: {missing}\n")
    (loop := tmp_path / "loop").symlink_to("loop")
    done = _run(*run, "small", "--model", loop)
    circle = "found Too many levels of symbolic links. Name a path of folders, without links in a circle."
    assert (done.returncode, done.stderr.partition("'small', ")[2]) == (2, f"{circle}\n")
    done = _run(*run, "large", "--model", twins / "small.onnx")
    assert (done.returncode, done.stderr.partition(" found ")[2]) == (
        2, "others in weights.json. Name the twin of budget 'large', or export the bundle again.\n",
    )  # fmt: skip
    done = _run(*run, "small", "--model", text)
    assert done.returncode == 1
    assert done.stderr.startswith(f"elastic_generate: onnxruntime: expected to run {text}, found ")
    assert done.stderr.endswith(". Update onnxruntime, or make the file anew.\n")


@pytest.mark.parametrize(
    ("vocab", "logits", "told"),
    [
        (2049, "last", "[B, 2049] as in manifest.json, found [B, 264]"),
        (0, "last", "[B, 0] as in manifest.json, found [B, 264]"),
        (1 << 39, "last", "[B, 549755813888] as in manifest.json, found [B, 264]"),
        (264, "all", "[B, T, 264] as in manifest.json, found [B, 264]"),
    ],
)
def test_a_manifest_that_contradicts_the_model_is_refused_in_both_languages(
    host_program: Path, wide_bundle: Path, tmp_path: Path, vocab: int, logits: str, told: str
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(wide_bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text("utf-8")) | {"logits": logits, "seal": EMPTY}
    (small,) = (budget for budget in manifest["budgets"] if budget["name"] == "small")
    small["widths"]["vocab_size"] = vocab
    for budget in manifest["budgets"]:  # whose logits the manifest's reader holds against the widths
        budget["engines"] = []
    (copy / "manifest.json").write_text(seal(json.dumps(manifest)), "utf-8")
    bundle = Bundle.open(copy)
    with pytest.raises(InputError) as caught:
        open_onnx(bundle, bundle.budget("small"), context=64)
    assert str(caught.value) == f"model output logits: expected {told}. Export the bundle again."
    done = _run(host_program, copy, "--device", "cpu", "--budget", "small", "--ids", "1")
    assert (done.returncode, done.stderr) == (2, f"elastic_generate: {caught.value}\n")
    twin = ("--model", copy / "small" / "model.onnx")
    done = _run(host_program, copy, "--device", "cpu", "--budget", "small", "--ids", "1", *twin)
    assert done.stderr.endswith(". Name the twin of budget 'small', or export the bundle again.\n")


def test_invalid_utf8_is_refused(host_program: Path, demo_bundle: Path, twins: Path) -> None:
    common = [host_program, demo_bundle, "--device", "cpu", "--budget", "small", "--model", "before/it/is/looked/for"]
    done = subprocess.run([*common, "--prompt", b"a\xff"], capture_output=True, check=False)
    assert (done.returncode, b"expected valid UTF-8, found an invalid byte at 1" in done.stderr) == (2, True)


@pytest.mark.timeout(900)
def test_text_goes_in_and_comes_out_as_python_decodes_it(small: tuple[object, ...], demo_bundle: Path) -> None:
    tokenizer = Tokenizer(demo_bundle)
    common = (*small, "--prompt", PROMPT, "--max-new", 120, "--no-eos", "--temperature", 1, "--seed", 5)
    ids = [int(line) for line in _run(*common, "--print-ids").stdout.split()]
    done = subprocess.run([str(part) for part in common], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == tokenizer.decode(ids) + "\n" != "\n"
    stop = tokenizer.decode(ids)[20:23]
    cut = subprocess.run([str(part) for part in (*common, "--stop", stop)], capture_output=True, check=False)
    assert cut.stdout.decode() == tokenizer.decode(ids).split(stop)[0] + "\n"


def test_a_tokenizer_that_is_not_read_is_refused_by_name_and_ids_go_without(
    host_program: Path, wide_bundle: Path, tmp_path: Path
) -> None:
    from elastic_runtime.format.seal import EMPTY, seal

    copy = tmp_path / "copy"
    shutil.copytree(wide_bundle, copy)
    described = json.loads((copy / "tokenizer.json").read_text("utf-8"))
    text = json.dumps(described | {"normalizer": {"type": "NFC"}})
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer.json").write_text(text, "utf-8")
    manifest = json.loads((copy / "manifest.json").read_text("utf-8")) | {"seal": EMPTY}
    entry = next(entry for entry in manifest["files"] if entry["path"] == "tokenizer.json")
    entry |= {"size": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (copy / "manifest.json").write_text(seal(json.dumps(manifest)), "utf-8")
    found = 'tokenizer.json: normalizer: expected none, found {"type":"NFC"}. Pass token ids instead of text.\n'
    done = _run(host_program, copy, "--device", "cpu", "--prompt", "Hello")
    assert (done.returncode, done.stderr.endswith(found)) == (2, True)
    done = _run(host_program, copy, "--device", "cpu", "--ids", "1,2", "--max-new", 2)
    assert (done.returncode, len(done.stdout.split())) == (0, 2)
    assert done.stderr.startswith("elastic_generate: prints token ids: ")
    assert done.stderr.endswith(found)


def test_what_this_machine_cannot_do_ends_with_1(program: Path, demo_bundle: Path) -> None:
    done = _run(program, demo_bundle, "--device", "gpu", "--budget", "small", "--ids", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("elastic_generate: device gpu: expected ")
    assert done.stderr.endswith(" Look at the driver and CUDA_VISIBLE_DEVICES, or run on the CPU (--device cpu).\n")
    done = _run(program, demo_bundle, "--device", "cpu", "--vram", "1MiB", "--ids", "1")
    assert done.returncode == 1
    assert done.stderr.startswith("elastic_generate: bundle: expected a budget that fits, found none. See:\n")


def test_auto_takes_the_largest_budget_that_fits_the_memory(host_program: Path, wide_bundle: Path) -> None:
    bundle = Bundle.open(wide_bundle)
    common = (host_program, wide_bundle, "--device", "cpu", "--ids", "1,2,3", "--max-new", 3)
    common += ("--print-ids", "--ignore-eos")
    wanted = _run(*common, "--budget", "large").stdout
    assert len(wanted.split()) == 3
    assert _run(*common).stdout == wanted
    assert wanted != _run(*common, "--budget", "small").stdout
    done = _run(*common, "--context", 1 << 38)
    assert done.returncode == 1
    assert done.stderr.startswith(f"elastic_generate: budget {bundle.budgets[-1].name!r} on the CPU: expected ")
    assert "GiB of free memory (float32 arithmetic, weights as stored)" in done.stderr


def test_top_k_zero_is_no_limit(small: tuple[object, ...]) -> None:
    common = (*small, "--ids", "1", "--max-new", 8, "--temperature", 2, "--seed", 3, "--print-ids", "--ignore-eos")
    assert _run(*common, "--top-k", 0).stdout == _run(*common).stdout != ""


def test_the_folder_of_plugins_can_be_named(program: Path) -> None:
    assert "--plugins DIR" in _run(program, "--help").stdout
    assert _run(program, "--plugins").stderr.startswith("elastic_generate: --plugins: expected a value behind it")


def test_a_swapped_file_is_named(program: Path, demo_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(demo_bundle, copy)
    damaged = bytearray((copy / "small" / "model.onnx").read_bytes())
    damaged[len(damaged) // 2] ^= 4
    (copy / "small" / "model.onnx").unlink()
    (copy / "small" / "model.onnx").write_bytes(damaged)
    done = _run(program, copy, "--check", "--explain", "--vram", "1GiB")
    assert done.returncode == 1
    assert "small/model.onnx: expected sha256 " in done.stderr
