"""The command line: exit codes, error texts, plans; whole exports are in tests/test_compile.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
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

BAD_REQUESTS = [
    (["--budget", "all"], "--target: expected GPU classes such as rtx5080, found nothing"),
    (["--target", "rtx5080"], "--budget: expected all or large,medium,small, found nothing"),
    (["--budget", "all", "--target", "rtx5081"], "Try rtx5080"),
    (["--budget", "midium", "--target", "rtx5080"], "medium"),
    (["--budget", "all", "--target", "rtx5080", "--max-context", "0"], "--max-context: expected 1 or more, found 0"),
    (["--budget", "all", "--target", "rtx5080", "--max-tokens", "0"], "--max-tokens: expected 1 or more, found 0"),
    (["--budget", "all", "--target", "rtx5080", "--jobs", "0"], "--jobs: expected at least 1, found 0. Leave it out"),
    (["--budget", "all", "--target", "rtx5080", "--max-context", "1k"], "--max-context: expected a number of tokens"),
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


def test_dry_run_of_the_12b_prints_figures_worked_out_by_hand(run, tmp_path, monkeypatch, sparse_12b) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("--checkpoint", str(sparse_12b), "--budget", "all", "--target", "rtx5080,rtx5090", "--dry-run")
    code, out, _ = run(*arguments)
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines()}
    # 12,310,001,152 parameters x 2 B = 24,620,002,304 (22.93 GiB); SSM states 28 x 128 x 80 x 128 x 4 B = 146,800,640;
    # conv states 28 x 3 x 12288 x 2 B = 2,064,384; caches 24,576 B x 16384 = 402,653,184; scratch 25 MB + 9 B x 22656
    # x 1024 = 233,797,696; reserve 0.6 GiB = 644,245,094. Together 26,049,563,302 B = 24.26 GiB.
    assert rows["12b"][1:] == ["12.31B", "22.9", "GiB", "24.3", "GiB", "no", "yes"]
    # 26 Mamba layers of 112 heads (projected 20080), 26 MLPs, 6 attention layers. 9,063,866,016 x 2 B = 18,127,732,032
    # (16.88 GiB); states 26 x (112 x 80 x 128 x 4 + 3 x 11008 x 2) B = 120,992,768; caches as above; scratch 25 MB +
    # 9 B x 20080 x 1024 = 210,057,280; reserve. Together 19,505,680,358 B = 18.17 GiB.
    assert rows["9b"][1:] == ["9.06B", "16.9", "GiB", "18.2", "GiB", "no", "yes"]
    # 24 Mamba layers of 96 heads of 64 (projected 14432), 24 MLPs (6 of 12288, 18 of 10752), 6 attention layers of 32
    # heads. 4,846,673,152 x 2 B = 9,693,346,304 (9.03 GiB); states 24 x (96 x 64 x 128 x 4 + 3 x 8192 x 2) B =
    # 76,677,120; caches as above; scratch 25 MB + 9 B x 14432 x 1024 = 158,005,312; reserve. Together
    # 10,974,927,014 B = 10.22 GiB.
    assert rows["6b"][1:] == ["4.85B", "9.0", "GiB", "10.2", "GiB", "yes", "yes"]
    assert "12b, 9b do not fit rtx5080 in bf16 at 16384 tokens: built all the same, never chosen there." in out
    code, out, _ = run(*arguments, "--json")
    plan = json.loads(out)
    assert {b["name"]: (b["weight_bytes"], b["vram_bytes"]["16384"]) for b in plan["budgets"]} == {
        "12b": (24_620_002_304, 26_049_563_302),
        "9b": (18_127_732_032, 19_505_680_358),
        "6b": (9_693_346_304, 10_974_927_014),
    }
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_the_12b_in_eight_bits_prints_figures_worked_out_by_hand(
    run, tmp_path, monkeypatch, sparse_12b
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("--checkpoint", str(sparse_12b), "--budget", "all", "--target", "rtx5080,rtx5070,rtx4060", "--dry-run")
    code, out, _ = run(*arguments, "--quantize", "int8")
    assert code == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if "GiB  " in line}
    # Of each Mamba layer's 12288 conv channels 5 numbers, of each head 3, norms of 10240 and 5120: 77,184 stay in bf16,
    # x 28; norms of 5120 of 28 MLPs, 6 attention layers and the head: 2,340,352 in all. The other 12,307,660,800
    # parameters are a byte each; rows with a scale: 2 x 131072, 28 x (22656 + 5120), 28 x (20480 + 5120), 6 x (5120
    # + 2 x 1024 + 5120) = 1,830,400 x 4 B. Together 12,319,663,104 B. States, caches, scratch and reserve are those of
    # bf16 (above): 1,429,560,998 B.
    assert rows["12b.int8"][1:] == ["12.31B", "11.5", "GiB", "12.8", "GiB", "yes", "no", "no"]
    # 26 x (5 x 11008 + 3 x 112 + 8960 + 4480) + 33 x 4480 = 1,937,056 stay; 9,061,928,960 B; scales of 2 x 131072 + 26
    # x (20080 + 4480) + 26 x (17920 + 4480) + 6 x (5120 + 2048 + 4480) = 1,552,992 rows.
    assert rows["9b.int8"][1:] == ["9.06B", "8.4", "GiB", "9.7", "GiB", "yes", "yes", "no"]
    # 24 x (5 x 8192 + 3 x 96 + 6144 + 3584) + 31 x 3584 = 1,334,528 stay; 4,845,338,624 B; scales of 2 x 131072 + 24
    # x (14432 + 3584) + 6 x 12288 + 18 x 10752 + 24 x 3584 + 6 x (4096 + 2048 + 3584) = 1,106,176 rows.
    assert rows["6b.int8"][1:] == ["4.85B", "4.5", "GiB", "5.7", "GiB", "yes", "yes", "yes"]
    assert "12b.int8 does not fit rtx5070 in bf16 with int8 weights at 16384 tokens" in out
    code, out, _ = run(*arguments, "--quantize", "int8", "--json")
    assert {b["name"]: (b["weight_bytes"], b["vram_bytes"]["16384"]) for b in json.loads(out)["budgets"]} == {
        "12b.int8": (12_319_663_104, 13_749_224_102),
        "9b.int8": (9_072_015_040, 10_449_963_366),
        "6b.int8": (4_852_432_384, 6_134_013_094),
    }
    # The quantised parent is of the 12B's size, and nothing can be linked.
    assert json.loads(out)["takes"]["disk_bytes"] > 12_319_663_104
    code, out, _ = run(*arguments)
    lines = [line.partition("With --quantize int8 ")[2] for line in out.splitlines() if "not fit" in line]
    assert lines == ["12b, 9b would fit.", "9b would fit.", "6b would fit."]
    assert list(tmp_path.iterdir()) == []


WITHOUT_TORCH = """
import sys
from elastic_export.cli.main import main
try:
    main()
finally:
    heavy = {"torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "tensorrt_rtx", "transformers"}
    assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--budget", "all", "--target", "rtx5080,rtx5090", "--dry-run", "--checkpoint"],
        ["targets", "--checkpoint"],
        ["inspect"],
    ],
    ids=["dry-run", "targets", "inspect"],
)
def test_what_builds_nothing_loads_no_torch_and_writes_nothing(tmp_path, sparse_12b, arguments) -> None:
    places = {name: tmp_path / name for name in ("home", "tmp", "cwd")}
    for place in places.values():
        place.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ELASTIC_", "HF_", "XDG_"))}
    environment = kept | {"HOME": str(places["home"]), "TMPDIR": str(places["tmp"]), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))

    def seen() -> dict[str, tuple[int, int]]:
        files = [path for folder in (*places.values(), sparse_12b) for path in sorted(folder.rglob("*"))]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}

    before = seen()
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments, str(sparse_12b)]
    done = subprocess.run(
        command, cwd=places["cwd"], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "12b" in done.stdout
    assert seen() == before


@pytest.mark.parametrize(
    ("extra", "code", "expected"),
    [
        (["--budget", "12b", "--target", "rtx5080"], 2, "at least one budget that fits it"),
        (["--budget", "12b", "--target", "rtx5080", "--allow-unfit"], 0, ""),
        (["--budget", "all", "--target", "rtx5080", "--require-fit"], 1, "12b on rtx5080 at 16384 tokens"),
        (["--budget", "6b", "--target", "rtx5080", "--require-fit"], 0, ""),
    ],
)
def test_what_does_not_fit(run, sparse_12b, extra, code, expected) -> None:
    found, _, err = run("--checkpoint", str(sparse_12b), *extra, "--dry-run")
    assert found == code
    assert expected in err


def test_targets_of_a_checkpoint(run, sparse_12b) -> None:
    code, out, _ = run("targets", "--checkpoint", str(sparse_12b))
    assert code == 0
    assert any(line.split()[:6] == ["rtx5080", "12b", "no", "no", "no", "no"] for line in out.splitlines())
    assert any(line.split()[:6] == ["rtx5090", "12b", "yes", "yes", "yes", "yes"] for line in out.splitlines())
    assert any(line.split()[:4] == ["rtx5080", "12b.int8", "yes", "yes"] for line in out.splitlines())
    assert "contexts above 24448 tokens are for plugin engines alone" in out
    assert "nvidia-smi" in out


def test_inspect_and_derive(run, tmp_path) -> None:
    from elastic_export.weights.sliced import write_sliced

    parent = Checkpoint.open(demo_checkpoint())
    code, out, _ = run("inspect", str(parent.path))
    assert code == 0
    assert "pattern M-M*-M-M*-M-" in out
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


def test_a_portable_target_is_a_card_of_no_known_size(run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # a plan needs no builder
    code, out, err = run("--budget", "small", "--target", "rtx,rtx5080", "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out)["budgets"][0]["fits"] == {"rtx": {"16384": None}, "rtx5080": {"16384": True}}


def test_a_dry_run_says_that_the_output_will_not_do(run, tmp_path) -> None:
    (tmp_path / "thesis.txt").touch()
    arguments = ("--budget", "small", "--target", "rtx5080", "--output", str(tmp_path), "--dry-run")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "found a folder with no manifest.json in it" in err
    code, out, _ = run(*arguments, "--force")
    assert (code, "small" in out) == (0, True)


def test_an_output_that_cannot_be_looked_into_is_the_requests_fault(run, tmp_path, monkeypatch) -> None:
    listed = Path.iterdir

    def refuse(self: Path) -> Iterator[Path]:  # root may look anywhere
        if self == tmp_path:
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    code, out, err = run("--budget", "all", "--target", "rtx5080", "--output", str(tmp_path), "--dry-run")
    assert (code, out) == (2, ""), err
    assert f"output {tmp_path}: expected a folder that can be written, found Permission denied" in err


@pytest.mark.parametrize("below", ["", "/bundle"])
def test_an_output_that_links_to_itself_is_refused_by_the_plan(run, tmp_path, below) -> None:
    (tmp_path / "loop").symlink_to("loop")
    arguments = ("--budget", "all", "--target", "rtx5080", "--output", f"{tmp_path}/loop{below}", "--dry-run")
    for extra in ((), ("--force",)):
        code, out, err = run(*arguments, *extra)
        assert (code, out) == (2, ""), err
        assert "found a symbolic link that leads back to itself. Name another output" in err


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
        (
            InternalError("node \x1b[2J", expected="a", found="b\nc"),
            70,
            "internal error: node \\x1b[2J: expected a, found b c. Run it again as elastic-export --debug",
        ),
        (PermissionError(13, "Permission denied", "a/b"), 1, "error: a/b: expected a usable file, found Permission de"),
        (OSError(28, "No space left on device"), 1, "error: the disk: expected room to write, found No space left"),
        (OSError(27, "File too large", "a/b"), 1, "error: a/b: expected room to write, found File too large. Free"),
        (OSError(5, "Input/output error", "a/b"), 1, "error: a/b: expected a usable file, found Input/output error."),
        (OSError(24, "Too many open files"), 1, "error: this machine: expected no refusal, found Too many open files."),
        (FileNotFoundError(2, "None", "contract.json"), 70, "internal error: FileNotFoundError: [Errno 2] None: "),
        (OSError(22, "Invalid argument", "a/b"), 70, "internal error: OSError: [Errno 22] Invalid argument: 'a/b'."),
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


def test_closed_pipe_ends_quietly() -> None:
    command = [sys.executable, "-m", "elastic_export", "targets"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ))
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    assert b"Traceback" not in err


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


@pytest.mark.parametrize("option", ["--checkpoint", "--output"])
def test_a_plan_refuses_names_that_are_no_text(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]], option: str
) -> None:
    """Before anything is built, which they would be the end of."""
    name = str(tmp_path / os.fsdecode(b"ck\xff"))
    if option == "--checkpoint":
        shutil.copytree(demo_checkpoint(), name)
    code, out, err = run("--budget", "small", "--target", "rtx5080", option, name, "--dry-run")
    assert (code, out) == (2, "")
    assert "ck\\udcff: expected a " in err
