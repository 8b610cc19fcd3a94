"""What the facts of a build become; the log lines that 1.7.1 writes, and nothing that only looks like them."""

from __future__ import annotations

from dataclasses import fields, replace

from elastic_export.engine.engine_facts import (
    EngineFacts,
    EngineReport,
    LogLine,
    activation_bytes,
    errors,
    unused_inputs,
)
from elastic_runtime.format.records import decode, encode

FACTS = EngineFacts(
    size=5,
    seconds=1.5,
    peak_rss=7,
    activation_bytes=(3, 9),
    plugin_layers={"X": 2},
    in_place={"key_cache.0": "key_cache_out.0"},
    layers=4,
    unused_inputs=("length",),
    flavour="tensorrt-rtx",
    version="1.7.1.116",
    chances=(),
    oversize=(),
    warnings=(),
)


def test_facts_round_trip_and_peak() -> None:
    told = replace(FACTS, chances=("c",), oversize=("o",), warnings=("w",))
    assert EngineFacts.from_json(told.to_json()) == told
    assert FACTS.activation_peak == 9


def test_a_build_as_it_should_be_says_nothing() -> None:
    assert FACTS.remarks() == ()


def test_remarks() -> None:
    told = replace(FACTS, chances=("no order", "no place"), oversize=("size: large",), warnings=("w", "v"))
    assert told.remarks() == (
        "the builder warns: w",
        "the builder warns: v",
        "size: large",
        "another build may give other bytes of equal meaning: no order; no place",
    )


def test_the_report_reads_back_and_knows_no_time_and_no_machine() -> None:
    report = replace(FACTS, chances=("c",)).report()
    assert decode(EngineReport, encode(report), "x") == report
    assert report.activation_bytes == {"decode": 3, "prefill": 9}
    assert (report.reproducible, FACTS.report().reproducible) == (False, True)
    assert not {"seconds", "peak_rss", "size"} & {field.name for field in fields(report)}
    assert replace(FACTS, seconds=9.0, peak_rss=1).report() == FACTS.report()


LOG = [
    LogLine("WARNING", "Unused Input: length"),
    LogLine("INFO", "Max Scratch Memory: 4096 bytes"),
    LogLine("INFO", "Total Activation Memory: 4096 bytes"),
    LogLine("INFO", "Total Weights Memory: 0 bytes"),
    LogLine("ERROR", "IBuilder::buildSerializedNetwork: Error Code 1"),
    LogLine("INFO", "Total Activation Memory: 2105344 bytes"),
]


def test_activation_memory_per_profile() -> None:
    assert activation_bytes(LOG) == (4096, 2105344)
    assert activation_bytes(LOG[:2]) == ()


def test_unused_inputs_and_errors() -> None:
    assert unused_inputs(LOG) == ("length",)
    assert errors(LOG) == ("IBuilder::buildSerializedNetwork: Error Code 1",)
