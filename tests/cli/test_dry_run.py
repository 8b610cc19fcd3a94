"""What a dry run and targets say of a checkpoint and an output, with nothing built."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from elastic_export.checkpoint.demo import demo_checkpoint


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
    assert "12b, 9b do not fit rtx5080 in bf16 at 16384 tokens: never chosen there." in out
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
        (["--budget", "12b", "--target", "rtx5080", "--require-fit"], 1, "--require-fit: expected every budget to fit"),
        (["--budget", "12b", "--target", "rtx5080", "--require-fit", "--allow-unfit"], 1, "--require-fit: expected"),
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
