"""elastic_generate on the demo bundle: same weights, same choice, same greedy ids as the Python side says.

The host backend needs onnxruntime's C headers, which its wheel lacks: ELASTIC_ONNXRUNTIME_ROOT names a folder with
include/ and lib/.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elastic_runtime import Bundle, iter_weights

GIB = 1 << 30
PROMPT = "Once upon a <|user|>time"
IDS = [*b"Once upon a ", 260, *b"time"]


def _run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [str(argument) for argument in arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="session")
def program(built: Path) -> Path:
    return built / "elastic_generate"


@pytest.fixture(scope="session")
def host_program(program: Path) -> Path:
    if not os.environ.get("ELASTIC_ONNXRUNTIME_ROOT"):
        pytest.skip("ELASTIC_ONNXRUNTIME_ROOT names no onnxruntime with C headers")
    return program


@pytest.fixture(scope="session")
def twins(demo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The float32 twin of every budget's model, `<budget>.onnx`."""
    onnx = pytest.importorskip("onnx")
    from elastic_runtime.twin import float32_twin

    folder = tmp_path_factory.mktemp("twins")
    for budget in Bundle.open(demo_bundle).budgets:
        model = onnx.load(str(demo_bundle / budget.model), load_external_data=False)
        onnx.save(float32_twin(model), str(folder / f"{budget.name}.onnx"))
    return folder


@pytest.mark.timeout(900)
def test_every_weight_is_cut_alike(program: Path, demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    for budget in bundle.budgets:
        assert budget.weights is not None
        weights = iter_weights(bundle.recipe(budget), (demo_bundle / budget.weights).parent)
        wanted = "".join(f"{hashlib.sha256(array.tobytes()).hexdigest()}  {name}\n" for name, array in weights)
        assert _run(program, demo_bundle, "--budget", budget.name, "--weights-digest").stdout == wanted


def test_the_choice_is_explained_alike(program: Path, demo_bundle: Path) -> None:
    bundle = Bundle.open(demo_bundle)
    for vram in (GIB // 2, 645_000_000, GIB):
        for context in (1, 2048, 4096):
            done = _run(program, demo_bundle, "--explain", "--device", "cpu", "--vram", vram, "--context", context)
            assert done.stdout == bundle.choose(vram=vram, context=context).explain() + "\n"


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
    for max_tokens in (64, 5, 1):
        options = ("--max-tokens", max_tokens, "--max-new", 200, "--context", 256, "--no-eos", "--print-ids")
        done = _run(*common, *options, "--prompt", PROMPT)
        assert [int(line) for line in done.stdout.split()] == wanted, done.stderr


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
    (["--vram", "0", "--explain"], "--vram: expected a size above zero such as 12GiB, found 0."),
    (["--ids", "1,x"], "--ids: expected token ids divided by commas, found x."),
    (["--prompt", "a", "--ids", "1"], "prompt: expected one of --prompt and --ids, found both."),
    (["--frobnicate"], "--frobnicate: expected a known option, found another one. See --help."),
    (["--context"], "--context: expected a value behind it, found the end of the command."),
    (["--temperature", "warm", "--ids", "1"], "--temperature: expected a number, found warm."),
    (["--device", "tpu", "--ids", "1"], "--device: expected auto, cpu or gpu, found tpu."),
    (["--device", "cpu", "--ids", "1"], "--budget auto: expected a GPU, or --vram with the memory to reckon with"),
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
    (["--ids", "1,264"], "row 0: expected token ids from 0 to 263, found 264."),
    (["--ids", "1,2,3", "--context", "2"], "row 0: expected at most 2 tokens more in a context of 2, found 3."),
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


def test_invalid_utf8_is_refused(host_program: Path, demo_bundle: Path, twins: Path) -> None:
    common = [host_program, demo_bundle, "--device", "cpu", "--budget", "small", "--model", twins / "small.onnx"]
    done = subprocess.run([*common, "--prompt", b"a\xff"], capture_output=True, check=False)
    assert (done.returncode, b"expected UTF-8 text, found another byte at offset 1" in done.stderr) == (2, True)


def test_a_closed_pipe_and_an_interrupt_end_cleanly(host_program: Path, demo_bundle: Path, twins: Path) -> None:
    import signal

    common = [host_program, demo_bundle, "--device", "cpu", "--budget", "small", "--model", twins / "small.onnx"]
    endless = [*common, "--ids", "1", "--max-new", "100000", "--no-eos", "--context", "100000", "--print-ids"]
    process = subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert (process.wait(60), process.stderr.read()) == (0, "")
    process.stderr.close()
    with subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert (process.wait(60), process.stderr.read()) == (130, "")


def test_a_swapped_file_is_named(program: Path, demo_bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(demo_bundle, copy)
    damaged = bytearray((copy / "small" / "model.onnx").read_bytes())
    damaged[len(damaged) // 2] ^= 4
    (copy / "small" / "model.onnx").unlink()
    (copy / "small" / "model.onnx").write_bytes(damaged)
    done = _run(program, copy, "--check", "--explain", "--vram", "1GiB")
    assert done.returncode == 1
    assert "small/model.onnx: expected sha256 " in done.stderr
