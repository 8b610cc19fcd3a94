"""device_check's page, and the README table that is made of a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from device_check import ncu, table


def time(what: str, who: str, us: float, **facts: float) -> dict:
    return {
        **{
            "kind": "time",
            "op": what.partition(" ")[0],
            "what": what,
            "who": who,
            "us": us,
            "p10": us - 1,
            "p90": us + 1,
        },
        **{"bytes": 30_000_000, "sets": 4, "samples": 30, **facts},
    }


def check(what: str, y: float, wrong: str = "", **more: object) -> dict:
    return {"kind": "check", "what": what, "errors": {"y": y, "ssm_state_out": 1e-7}, "wrong": wrong, **more}


@pytest.fixture
def report() -> dict:
    findings = [
        {
            "kind": "ceiling",
            "copy_gb_s": 2900.0,
            "copies": {"memcpy": 2900.0, "kernel": 2800.0},
            "gemm_tflops": 700.0,
            "clocks": "H100, 1980 MHz",
        },
        check("mixer decode base", 3e-6, op="mixer", type="float32"),
        check("mixer prefill base", 4e-6, op="mixer", type="float32"),
        check("decode batch 1, elastic decode_step", 1.6e-3),
        check("decode batch 1, flashinfer simple", 2.9e-3, peer=True),
        check("decode batch 1, flashinfer vertical", 0.7, "y 0.7 above 0.02", peer=True),
        time("decode batch 1", "elastic decode_step", 20.0),
        time("decode batch 1", "mamba_ssm", 30.0),
        time("decode batch 1", "flashinfer simple", 25.0),
        time("prefill 8k", "mamba_ssm chunk 128", 900.0, flops=4.5e10),
        {"kind": "ceiling", "copy_gb_s": 3000.0, "copies": {"memcpy": 3000.0}, "gemm_tflops": 710.0, "clocks": ""},
        {"kind": "legend", "op": "decode", "who": "elastic", "text": "the whole op"},
        {"kind": "legend", "op": "prefill", "who": "elastic", "text": "the whole op"},
        {
            **{"kind": "kernels", "op": "decode", "what": "decode batch 1", "who": "mamba_ssm"},
            "kernels": [{"name": "conv", "us": 4.0, "launches": 1}, {"name": "scan", "us": 2.5, "launches": 2}],
        },
        {"kind": "skipped", "what": "prefill 64k", "why": "takes 60 s, 4 s left"},
        {"kind": "note", "what": "plugin_runner", "why": "not built: TensorRT's headers were not found"},
        {"kind": "note", "what": "decode batch 1, elastic chunk_prefill", "why": "expected 2 tokens or more, found 1"},
        {"kind": "note", "what": "ncu", "rows": 12},
    ]
    stage = {"name": "all", "proves": True, "outcome": "done", "seconds": 3.0, "words": "", "findings": findings}
    late = {"name": "ncu", "proves": False, "outcome": "late", "seconds": 60.0, "words": "ended", "findings": []}
    return {"machine": "a card", "passed": True, "wrong": [], "unproven": [], "stages": [stage, late]}


def test_the_page_has_times_errors_and_what_is_missing(report: dict) -> None:
    lines = table.text(report).splitlines()
    (ours,) = [line.split() for line in lines if line.startswith("elastic decode_step")]
    # 30 MB in 20 us are 1500 GB/s, half of the better copy
    assert ours == ["elastic", "decode_step", "20.00", "19.00", "21.00", "1500", "50.0%", "0.0016", "1e-07"]
    assert any(line.startswith("mamba_ssm chunk 128") and line.endswith("50.0 TFLOP/s") for line in lines)
    assert "mixer     float32   y               4e-06" in lines
    assert "  prefill 64k: takes 60 s, 4 s left" in lines
    assert "  decode batch 1, flashinfer vertical: not timed, y 0.7 above 0.02" in lines
    assert "  ncu: ended" in lines
    assert "  plugin_runner: not built: TensorRT's headers were not found" in lines
    assert "  decode batch 1, elastic chunk_prefill: expected 2 tokens or more, found 1" in lines
    assert not any(line.startswith("  ncu: ") for line in lines if line != "  ncu: ended")
    assert lines[1] == "copy 2900.0 GB/s (memcpy 2900.0, kernel 2800.0), BF16 product 700.0 TFLOP/s"
    assert "     2.50 us     2 x scan" in lines
    assert lines.count("elastic      the whole op") == 1
    assert lines[-1] == "all correct"


def test_times_stand_below_each_other_however_long_a_kernels_name_is(report: dict) -> None:
    report["stages"][0]["findings"].append(time("prefill 8k", "elastic chunk_prefill_gated_resident", 700.0))
    lines = table.text(report).splitlines()
    heading = next(line for line in lines if line.endswith("state/kv"))
    rows = [
        line for line in lines if line.startswith(("mamba_ssm chunk 128 ", "elastic chunk_prefill_gated_resident "))
    ]
    assert [line[: heading.index(" us") + 3].split()[-1] for line in rows] == ["900.00", "700.00"]


def test_counters_say_what_bound_a_kernel_and_how_many_blocks_there_was_room_for(report: dict) -> None:
    """In the words of ncu --csv --page details, a line a metric; rules have none."""
    head = '"ID","Kernel Name","Grid Size","Metric Name","Metric Unit","Metric Value"'
    kernel = '"7","void elastic::chunk<GatedOutput<bf16>, 40>(Args, Workspace)","(256, 1, 1)"'
    metrics = (
        *('"Duration","ns","512,224"', '"DRAM Throughput","%","33.37"', '"Block Limit Registers","block","2"'),
        *('"Block Limit Shared Mem","block","1"', '"","",""', '"Grid Size","","256"'),
    )
    found = ncu.launches([head, *(f"{kernel},{metric}" for metric in metrics)])
    name = "void elastic::chunk<GatedOutput<bf16>, 40>"
    assert found == [
        {
            **{"kernel": name, "grid": "(256, 1, 1)", "duration": "512,224 ns", "dram": "33.37 %"},
            **{"blocks_by_registers": "2 block", "blocks_by_shared": "1 block"},
        }
    ]
    report["stages"][0]["findings"].append({"kind": "counters", **found[0]})
    (line,) = [line for line in table.text(report).splitlines() if line.endswith(f": {name} (256, 1, 1)")]
    assert line == (
        "    512,224 ns, dram 33.37 %, l2 ?, l1 ?, compute ?, "
        f"blocks 2 block by registers, 1 block by shared memory of ?, warps ?: {name} (256, 1, 1)"
    )


@pytest.mark.parametrize(
    ("told", "kernel"),
    [
        (
            "void elastic::mamba2::chunk_prefill<elastic::mamba2::GatedOutput<__nv_bfloat16>, __half, (int)40>"
            "(elastic::mamba2::Args, elastic::mamba2::PrefillWorkspace)",
            "void elastic::mamba2::chunk_prefill<elastic::mamba2::GatedOutput<__nv_bfloat16>, __half, 40>",
        ),
        ("void merge<float, (bool)1, (int)-1>(Args)", "void merge<float, 1, -1>"),
        ("gated_norm", "gated_norm"),
    ],
)
def test_counters_tell_instances_of_a_kernel_apart(told: str, kernel: str) -> None:
    """Nsight Compute writes the type of a template's number before it, in brackets."""
    head, row = '"ID","Kernel Name","Grid Size","Metric Name","Metric Unit","Metric Value"', '"(8, 1, 1)","","",""'
    assert ncu.launches([head, f'"0","{told}",{row}']) == [{"kernel": kernel, "grid": "(8, 1, 1)"}]


def test_what_is_wrong_is_said_last(report: dict) -> None:
    report.update(passed=False, wrong=["decode: y 1 above 0.1"], unproven=["matrix: late"])
    page = table.text(report)
    assert "\nwrong:\n  decode: y 1 above 0.1\n" in page
    assert "\nnot proven:\n  matrix: late\n" in page
    assert page.endswith("NOT proven correct\n")


def test_the_readme_has_ours_beside_the_best_peer(report: dict) -> None:
    rows = table.markdown(report).splitlines()
    assert rows[0].startswith("a card; a copy moves 3000 GB/s.")
    assert (
        rows[-2] == "| decode batch 1 | `decode_step` | 20.0 | 50% | 1.6e-03 | `flashinfer simple` | 25.0 | 2.9e-03 |"
    )
    assert table.markdown(report, "decode").splitlines() == rows[:-1]
    assert rows[-1] == "| prefill 8k | not run |  |  |  | `mamba_ssm chunk 128` | 900.0 | nan |"


def test_a_readme_keeps_all_but_its_table(report: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, source = tmp_path / "README.md", tmp_path / "report.json"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n", "utf-8")
    source.write_text(json.dumps(report))
    monkeypatch.setattr("sys.argv", ["table.py", str(source), "--into", str(page)])
    for _ in range(2):
        assert table.main() == 0
        assert page.read_text("utf-8") == f"before\n{table.BEGIN}\n{table.markdown(report)}\n{table.END}\nafter\n"
    with pytest.raises(ValueError, match="expected a line <!-- device_check"):
        table.replace("no marks", "table")


@pytest.mark.parametrize("op", ["mamba2_mixer", "cached_attention"])
def test_the_ops_pages_have_the_marks(op: str) -> None:
    page = (Path(table.__file__).parents[1] / op / "README.md").read_text("utf-8")
    assert f"{table.BEGIN}\nnew rows\n{table.END}\n" in table.replace(page, "new rows")
