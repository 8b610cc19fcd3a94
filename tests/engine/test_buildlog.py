"""The log lines the builder of 1.7.1 writes, and nothing that only looks like them."""

from __future__ import annotations

from elastic_export.engine.buildlog import LogLine, activation_bytes, errors, last_words, unused_inputs

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


def test_last_words_are_the_last_and_short() -> None:
    assert last_words("a\n\nb\nc\n", lines=2) == "b | c"
    assert last_words("x" * 1000, width=10) == "x" * 10
    assert last_words(" \n") == "nothing"
