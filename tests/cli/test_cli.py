"""The command line: exit codes and error texts; whole exports are in tests/test_compile.py."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from elastic_export.checkpoint.demo import demo_checkpoint
from elastic_export.checkpoint.reader import Checkpoint
from elastic_export.checkpoint.synthetic import random_weights
from elastic_export.engine.build_folder import BuildFaultError
from elastic_runtime.errors import InternalError
from elastic_runtime.format.manifest_reader import NAME
from elastic_runtime.verify.verified import Verified
from quantised_checkpoint import write_quantised
from random_demo import random_demo
from synthetic import random_architecture, write_checkpoint


def interrupted_import() -> ImportError:
    """What pybind11 makes of Ctrl-C in a module that is being imported."""
    error = ImportError("initialization failed")
    error.__cause__ = KeyboardInterrupt()
    return error


BAD_REQUESTS = [
    (["--budget", "all"], "--target: expected GPU classes such as rtx5080, found nothing"),
    (["--target", "rtx5080"], "--budget: expected all or large,medium,small, found nothing"),
    (["--budget", "all", "--target", "rtx5081"], "Try rtx5080"),
    (["--budget", "midium", "--target", "rtx5080"], "medium"),
    (["--budget", "all", "--target", "rtx5080", "--max-context", "0"], "--max-context: expected 1 or more, found 0"),
    (["--budget", "all", "--target", "rtx5080", "--max-tokens", "0"], "--max-tokens: expected 1 or more, found 0"),
    (["--budget", "all", "--target", "rtx5080", "--jobs", "0"], "--jobs: expected at least 1, found 0. Leave it out"),
    (["--budget", "all", "--target", "rtx5080", "--max-context", "1k"], "--max-context: expected a number of tokens"),
    (["--budget", "all", "--target", "rtx5080", "--max-context", "1_6"], "--max-context: expected a number of tokens"),
    (["--budget", "all", "--target", "rtx5080", "--max-context", "\uff11\uff16"], "--max-context: expected a number"),
    (["--budget", "all", "--target", "rtx5080", "--max-context", "9" * 5000], f"found '{'9' * 80}…'. Write plain"),
    (["--budget", "all", "--target", "rtx5080", "--max-context", "9" * 20], f"found {'9' * 20}"),
    (["--budget", "all", "--target", "rtx5080", "--max-context", "64,64"], "expected different contexts"),
    (
        ["--budget", "all", "--target", "rtx5080", "--max-tokens", "256", "--max-context", "128"],
        "expected at most --max-context (128)",
    ),
    (
        ["--budget", "all", "--target", "rtx5080", "--ops", "native", "--max-context", "30000"],
        "Lower --max-context to 24544",
    ),
    (["--budget", "all", "--target", "rtx5080", "--precision", "fp16"], "use --weights sliced"),
    (["--budget", "all", "--target", "rtx5080", "--checkpoint", "/no/such"], "--checkpoint: expected a folder"),
    (["--budget", "all", "--target", "rtx5080", "--checkpoint", "some/repo"], "hf download some/repo"),
    (["--budget", "all", "--target", "rtx5080", "--output", "/proc/elastic"], "output /proc/elastic"),
    (["--budget", "all", "--target", "rtx5080", "--output", "n" * 300], "can be written, found File name too"),
    (["--budget", "all", "--target", "rtx5080", "--budgets", "/no/such"], "/no/such"),
    (["verify", "/no/such"], "/no/such"),
    (["targets", "--checkpoint", "/no/such"], "/no/such"),
    (["budgets", "derive", "--parent", "/no/such", "--sliced", "/no/such"], "/no/such"),
    (["inspect", "/no/such.onnx"], "/no/such.onnx: expected an ONNX model"),
    (["inspect", "/no/such"], "expected a bundle, a checkpoint folder or an .onnx file"),
    (["--budget", "all", "--target", "rtx5080", "--flavour", "tensorrt"], "tensorrt: expected the full TensorRT to be"),
    (["--flavour", "onnx"], "is not one of 'tensorrt-rtx', 'tensorrt'"),
    (["--no-such-option"], "No such option"),
    (["--weights", "borrowed"], "is not one of"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "expected"), BAD_REQUESTS, ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else ""
)
def test_bad_requests_exit_2_and_say_why(run, tmp_path, monkeypatch, arguments, expected) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    code, out, err = run(*arguments)
    assert code == 2, err
    assert expected.lower() in err.lower()
    assert "Traceback" not in out + err
    assert not list(tmp_path.rglob(NAME))


def test_empty_environment_variable_is_an_error(run, monkeypatch) -> None:
    monkeypatch.setenv("ELASTIC_CHECKPOINT", "")
    code, _, err = run("--budget", "all", "--target", "rtx5080", "--dry-run")
    assert code == 2
    assert "ELASTIC_CHECKPOINT" in err


def test_output_that_is_no_bundle_is_left_alone(run, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    code, _, err = run("--budget", "all", "--target", "rtx5080", "--output", str(tmp_path / "mine"))
    assert code == 2
    assert "not a bundle" in err or "expected a bundle" in err
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_debug_leaves_a_folder_that_is_not_its_own_alone(run, tmp_path) -> None:
    thesis = tmp_path / "out.debug" / "small" / "thesis.tex"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    code, _, err = run("--budget", "small", "--target", "rtx5080", "--output", str(tmp_path / "out"), "--debug")
    assert code == 2
    assert "out.debug: expected none, or the dumps of --debug that" in err
    assert "found small/thesis.tex as well. Move it away" in err
    assert thesis.read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["out.debug"], "refused before anything was built"


def test_inspect_and_derive(run, tmp_path) -> None:
    from elastic_export.weights.sliced import write_sliced

    parent = Checkpoint.open(demo_checkpoint())
    code, out, _ = run("inspect", str(parent.path))
    assert code == 0
    assert "pattern M-M*-M-M*-M-" in out
    assert " tensors in 1 file, bf16\n" in out
    write_sliced(parent, parent.budgets["medium"], tmp_path / "medium")
    code, out, _ = run("budgets", "derive", "--parent", str(parent.path), "--sliced", str(tmp_path / "medium"))
    assert code == 0
    document = json.loads(out)
    assert document["budgets"]["medium"]["hidden_size"] == parent.budgets["medium"].hidden_size
    assert document["budgets"]["medium"]["skip_layers"] == list(parent.budgets["medium"].skip_layers)


@pytest.mark.parametrize("extra", ["config", "tensor"])
def test_every_command_that_opens_a_checkpoint_can_be_lenient(run, tmp_path, extra) -> None:
    folder = shutil.copytree(random_demo(), tmp_path / "demo")
    if extra == "config":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"mascot": "dragon"}))
        ignore, todo = ("--ignore-config", "mascot"), "pass --ignore-config mascot"
    else:
        shard, index = min(folder.glob("*.safetensors")), folder / "model.safetensors.index.json"
        tensors, document = load_file(shard), json.loads(index.read_text())
        document["weight_map"]["router.weight"] = shard.name
        index.write_text(json.dumps(document))
        save_file(tensors | {"router.weight": np.zeros(3, np.float32)}, shard)
        ignore, todo = ("--ignore-tensors", "router.*"), "name them with --ignore-tensors GLOB"
    for command in (
        ("--checkpoint", str(folder), "--budget", "all", "--target", "rtx5080", "--dry-run"),
        ("inspect", str(folder)),
        ("targets", "--checkpoint", str(folder)),
        ("budgets", "derive", "--parent", str(folder), "--sliced", str(folder)),
    ):
        code, _, err = run(*command)
        assert (code, todo in err) == (2, True), err
        code, _, err = run(*command, *ignore)
        assert code == 0, err
        idle = ("--ignore-tensors", "nothing.*")
        code, out, err = run(*command, *ignore, *idle)
        assert (code, "nothing.*: matches no tensor" in out + err) == (0, True)


def test_every_command_that_opens_a_checkpoint_takes_a_quantised_one(run, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # a plan needs no builder
    demo = Checkpoint.open(demo_checkpoint())
    weights = {name: np.asarray(demo.read(name), np.float32) for name in demo.tensors}
    kinds = {"in_proj": "NVFP4", "up_proj": "FP8", "lm_head": "FP8"}
    folder = write_quantised(
        tmp_path / "demo", demo.architecture, weights, lambda module: kinds.get(module.rsplit(".", 1)[-1]),
        list(demo.budgets.values()),
    ).folder  # fmt: skip
    note = f"{folder}: 6 matrices in FP8 and 5 matrices in NVFP4 are read by dequantising"
    dry = ("--checkpoint", str(folder), "--budget", "all", "--target", "rtx5080", "--ops", "native", "--dry-run")
    for command in (
        (*dry, "--weights", "sliced"),
        ("inspect", str(folder)),
        ("targets", "--checkpoint", str(folder)),
        ("budgets", "derive", "--parent", str(folder), "--sliced", str(folder)),
    ):
        code, out, err = run(*command)
        assert (code, note in out + err) == (0, True), err
    code, out, _ = run("inspect", str(folder))
    assert "bf16, 6 matrices in FP8, 5 matrices in NVFP4\n" in out
    code, out, _ = run("inspect", str(folder), "--json")
    assert json.loads(out)["quantised"] == {"FP8": 6, "NVFP4": 5}
    code, _, err = run(*dry)
    assert (code, "--weights shared: expected a checkpoint whose matrices are all in bf16" in err) == (2, True), err
    sizes = [json.loads(run(*dry, "--weights", "sliced", "--json")[1])]
    sizes.append(json.loads(run(*dry, "--weights", "sliced", "--json", "--checkpoint", str(demo.path))[1]))
    assert sizes[0]["budgets"] == sizes[1]["budgets"], "what ships is as large"


def test_a_fault_in_the_build_process_is_an_internal_error_with_both_tracebacks(run, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise BuildFaultError("KeyError: 'x'", "Traceback of the other process")

    monkeypatch.setattr("elastic_export.cli.export.plan_job", fail)
    arguments = ("--budget", "all", "--target", "rtx5080")
    code, _, err = run(*arguments)
    assert (code, "process" in err) == (70, False)
    assert "internal error: BuildFaultError: KeyError: 'x'. Run it again" in err
    code, _, err = run("--debug", *arguments)
    assert code == 70
    assert "In the build process:\nTraceback of the other process" in err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (
            ZeroDivisionError("one\ntwo \x1b[2J"),
            70,
            "internal error: ZeroDivisionError: one two \\x1b[2J. Run it",
        ),
        (RuntimeError("x" * 9999), 70, "internal error: RuntimeError: xxx"),
        (interrupted_import(), 130, "interrupted; a bundle is the old one"),
        (
            InternalError("node \x1b[2J", expected="a", found="b\nc"),
            70,
            "internal error: node \\x1b[2J: expected a, found b c. Run it again as elastic-export --debug",
        ),
        (PermissionError(13, "Permission denied", "a/b"), 1, "error: a/b: expected a usable file, found Permission de"),
        (OSError(28, "No space left on device"), 1, "error: the disk: expected room to write, found No space left"),
        (OSError(27, "File too large", "a/b"), 1, "error: a/b: expected room to write, found File too large. Raise"),
        (OSError(5, "Input/output error", "a/b"), 1, "error: a/b: expected a usable file, found Input/output error."),
        (OSError(24, "Too many open files"), 1, "error: this machine: expected no refusal, found Too many open files."),
        (FileNotFoundError(2, "None", "contract.json"), 70, "internal error: FileNotFoundError: [Errno 2] None: "),
        (OSError(22, "Invalid argument", "a/b"), 70, "internal error: OSError: [Errno 22] Invalid argument: 'a/b'."),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), 1, "error: memory: expected enough"),
        (MemoryError(), 1, "error: memory: expected enough for this step, found none left."),
    ],
)
@pytest.mark.parametrize("command", ["export", "targets"])
def test_whatever_goes_wrong_is_one_line(run, monkeypatch, command, error, code, text) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("elastic_export.cli.export.plan_job", fail)
    monkeypatch.setattr("elastic_export.cli.targets.load_targets", fail)
    arguments = ["targets"] if command == "targets" else ["--budget", "all", "--target", "rtx5080"]
    done, out, err = run(*arguments)
    assert (done, out, len(err.splitlines()[-1]) < 700) == (code, "", True)
    assert err.splitlines()[-1].startswith(text)
    assert "Traceback" not in err
    done, _, err = run("--debug", *arguments)
    assert (done, "Traceback" in err) == (code, True)


def test_options_of_an_export_before_a_command_are_named_as_they_are_written(run) -> None:
    code, _, err = run("--json", "--budgets", "b.json", "targets")
    assert code == 2
    assert "--json, --budgets: options of an export; targets takes its own" in err


def test_the_code_of_an_internal_error_is_documented(run) -> None:
    assert "70 an internal error, to be reported" in " ".join(run("--help")[1].split())
    assert "70: an internal error" in (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_verify_passes_its_options_on_and_ends_by_the_result(run, monkeypatch, tmp_path) -> None:
    asked = []

    def verified(path, **wishes) -> Verified:
        asked.append((path, wishes["plugins"], wishes["external"], wishes["require_engine"]))
        return Verified("b", 1, (), (), require_engine=wishes["require_engine"])

    monkeypatch.setattr("elastic_runtime.verify.bundle_verification.verify_bundle", verified)
    code, out, _ = run("verify", str(tmp_path), "--plugins", "p", "--weights-folder", "w", "--json")
    assert (code, json.loads(out)["replayed"]) == (0, False)
    code, out, _ = run("verify", str(tmp_path), "--require", "engine")
    assert (code, out.splitlines()[-1]) == (1, "NOT VERIFIED")
    assert asked == [(tmp_path, Path("p"), Path("w"), False), (tmp_path, None, None, True)]


def test_derive_leaves_an_older_file_whole_where_the_disk_is_full(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = shutil.copytree(random_demo(), tmp_path / "demo"), tmp_path / "budgets.json"
    (folder / "consolidated.safetensors").write_bytes(b"")  # which is told of
    file.write_text("older")
    request = ("budgets", "derive", "--parent", str(folder), "--sliced", str(folder), "--output", str(file))
    write_text = Path.write_text

    def full(self: Path, text: str, *rest: str, **options: str) -> int:
        write_text(self, text[:10], "utf-8")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        code, _, err = run(*request)
    assert code == 2
    assert f"error: {file}: expected a file that can be written, found No space left on device. Name another" in err
    assert err.startswith(f"note: {folder}: not read: consolidated.safetensors; ")
    assert (file.read_text(), sorted(path.name for path in tmp_path.iterdir())) == ("older", ["budgets.json", "demo"])
    assert run(*request)[0] == 0
    assert list(json.loads(file.read_text())["budgets"]) == ["demo"]


def test_every_option_and_command_is_in_the_readme() -> None:
    from elastic_export.cli.main import cli

    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    options = [name for parameter in cli.params for name in parameter.opts if name.startswith("--")]
    missing = [name for name in (*options, *cli.commands) if name not in readme and name not in ("--version", "--help")]
    assert not missing


def test_unfit_checkpoint_faults_exit_2(run, tmp_path) -> None:
    rng = np.random.default_rng(0)
    arch = random_architecture(rng)
    write_checkpoint(tmp_path / "c", arch, random_weights(arch, rng), None, "bf16")
    code, _, err = run("--checkpoint", str(tmp_path / "c"), "--budget", "all", "--target", "rtx5080")
    assert code == 2
    assert "budgets derive" in err
