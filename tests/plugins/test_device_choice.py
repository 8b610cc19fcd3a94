"""What device_check says of the kernel that `auto` should take: of made-up times, each way it can come out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from device_check import choice, table

COPIED, RESIDENT = "elastic chunk_prefill_gated", "elastic chunk_prefill_gated_resident"


def times(us: dict[int, dict[str, float]], **facts: object) -> list[dict]:
    """Findings of one run, by tokens and entrant; of the 12B's heads."""
    base = {"kind": "time", "op": "prefill", "batch": 1, "head_dim": 80, "p10": 1.0, "p90": 1.0, "bytes": 1, "sets": 3}
    return [
        {**base, "what": f"prefill batch 1, {tokens} tokens", "tokens": tokens, "who": who, "us": value, **facts}
        for tokens, entrants in us.items()
        for who, value in entrants.items()
    ]


def said(found: list[dict]) -> dict[str, str]:
    """The lines by their beginning."""
    return {line.split(":")[0]: line for line in list(choice.lines(found))[1:]}


def test_a_resident_state_is_taken_where_it_is_quicker() -> None:
    small, large = (
        {256: {COPIED: 40.0, RESIDENT: 39.6}, 1024: {COPIED: 120.0, RESIDENT: 110.0}},
        {COPIED: 850.0, RESIDENT: 700.0},
    )
    run = times({8192: large, **small})
    assert said(run)["BF16, P = 80"] == (
        "BF16, P = 80: chunk_prefill_gated at 256 tokens; chunk_prefill_gated_resident at 1024, 8192 tokens "
        "(resident over copied: 0.990 at 256, 0.917 at 1024, 0.824 at 8192)"
    )


def test_one_kernel_at_all_sizes_is_one_name() -> None:
    found = said(times({256: {COPIED: 40.0, RESIDENT: 41.0}, 8192: {COPIED: 700.0, RESIDENT: 700.0}}))
    assert found["BF16, P = 80"].startswith("BF16, P = 80: chunk_prefill_gated at 256, 8192 tokens (")


def test_each_width_has_its_own_answer_and_only_the_12b_s_the_goal() -> None:
    wide = times({8192: {COPIED: 850.0, RESIDENT: 860.0, "mamba_ssm chunk 256": 1275.0}})
    narrow = times({8192: {COPIED: 700.0, RESIDENT: 600.0}}, head_dim=64)
    assert list(choice.lines([*narrow, *wide]))[1:] == [
        "BF16, P = 80: chunk_prefill_gated at 8192 tokens (resident over copied: 1.012 at 8192)",
        "BF16, P = 64: chunk_prefill_gated_resident at 8192 tokens (resident over copied: 0.857 at 8192)",
        "FP16 (timed in BF16), P = 80: not known, chunk_prefill and chunk_prefill_resident were not both timed",
        "FP16 (timed in BF16), P = 64: not known, chunk_prefill and chunk_prefill_resident were not both timed",
        "8192 tokens at 1.5 x mamba_ssm: met, chunk_prefill_gated 850.0 us is 1.500 x mamba_ssm chunk 256 1275.0 us",
    ]


def test_a_report_from_before_widths_is_of_the_12b() -> None:
    old = times({8192: {COPIED: 850.0, RESIDENT: 700.0}})
    for time in old:
        del time["head_dim"]
    assert "BF16, P = 80" in said(old)


def test_what_was_not_timed_on_both_sides_decides_nothing() -> None:
    assert said(times({8192: {COPIED: 850.0}}))["BF16, P = 80"] == (
        "BF16, P = 80: not known, chunk_prefill_gated and chunk_prefill_gated_resident were not both timed"
    )
    half = said(times({256: {COPIED: 40.0, RESIDENT: 30.0}, 8192: {RESIDENT: 600.0}}))["BF16, P = 80"]
    assert half.startswith("BF16, P = 80: chunk_prefill_gated_resident at 256 tokens (")


def test_the_goal_is_that_of_the_best_chunk_in_the_same_run() -> None:
    peers = {"mamba_ssm chunk 64": 1500.0, "mamba_ssm chunk 256": 1184.5}
    near = said(times({8192: {COPIED: 859.0, RESIDENT: 790.1, **peers}}))
    assert near["8192 tokens at 1.5 x mamba_ssm"] == (
        "8192 tokens at 1.5 x mamba_ssm: not met, chunk_prefill_gated_resident 790.1 us is 1.499 x mamba_ssm chunk 256 "
        "1184.5 us"
    )
    met = said(times({8192: {RESIDENT: 789.6, **peers}}))["8192 tokens at 1.5 x mamba_ssm"]
    assert ": met, " in met
    for alone in ({COPIED: 859.0}, peers):
        assert ": not known, " in said(times({8192: alone}))["8192 tokens at 1.5 x mamba_ssm"]


def test_other_ops_and_batches_say_nothing() -> None:
    assert list(choice.lines(times({8192: {COPIED: 1.0, RESIDENT: 2.0}}, op="attention prefill"))) == []
    assert list(choice.lines(times({8192: {COPIED: 1.0, RESIDENT: 2.0}}, batch=2))) == []


def test_the_page_says_it_as_a_script_too(tmp_path: Path) -> None:
    stage = {
        **{"name": "prefill", "proves": False, "outcome": "done", "seconds": 1.0, "words": ""},
        "findings": times({8192: {COPIED: 850.0, RESIDENT: 700.0}}),
    }
    report = {"machine": "a card", "passed": True, "wrong": [], "unproven": [], "stages": [stage]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    command = [sys.executable, "-P", str(Path(table.__file__)), str(tmp_path / "report.json")]
    page = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "\nBF16, P = 80: chunk_prefill_gated_resident at 8192 tokens (resident over copied: 0.824 at 8192)\n" in page
