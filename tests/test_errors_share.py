"""Nine of ten errors that a user can cause say what to do, folder by folder; a fault of ours is none of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from errors_share import Share, read_sources, table

FLOOR = 0.9
SHARES = read_sources().shares()
CLASSES = """
class ElasticError(Exception):
    def __init__(self, subject, *, expected, found, todo=""): ...
class InputError(ElasticError): ...
class BuildError(ElasticError): ...
class InternalError(ElasticError):
    def __init__(self, subject, *, expected, found):
        super().__init__(subject, expected=expected, found=found, todo="report it")
class CardError(BuildError):
    def __init__(self, found):
        super().__init__("card", expected="one", found=found, todo="look at the driver")
"""
CHOICE = """
def f(n):
    expected, todo = "y", "a" if n else "OTHER"
    raise InputError("x", expected=expected, found="z", todo=todo)
"""


@pytest.mark.parametrize("folder", SHARES)
def test_errors_say_what_to_do(folder: str) -> None:
    assert SHARES[folder].part >= FLOOR, table(SHARES)


def test_every_folder_is_read() -> None:
    raising = {"checkpoint", "cli", "engine", "plan", "weights", "bundle", "verify", "passes", "emit", "trace"}
    assert {f"elastic_export/{folder}" for folder in raising} <= set(SHARES)
    assert {f"elastic_runtime/{folder}" for folder in ("format", "ort", "tensorrt", "text", "cli")} <= set(SHARES)
    assert SHARES["elastic_export/checkpoint"].errors > 50
    assert sum(share.errors for share in SHARES.values()) > 250


@pytest.mark.parametrize("folder", ["emit", "graph", "ops", "passes", "trace"])
def test_what_a_compiler_finds_of_its_own_graph_is_a_fault_of_ours(folder: str) -> None:
    assert SHARES[f"elastic_export/{folder}"].errors == 0


@pytest.mark.parametrize(
    ("source", "errors", "advised", "faults"),
    [
        ('raise InputError("x", expected="y", found="z")', 1, 0, 0),
        ('raise InputError("x", expected="y", found="z", todo="")', 1, 0, 0),
        ('raise InputError("x", expected="y", found="z", todo="do it")', 1, 1, 0),
        ('raise BuildError("x", expected="y", found="z", todo=f"do {1}")', 1, 1, 0),
        ('raise InternalError("x", expected="y", found="z")', 0, 0, 1),
        ('raise CardError("none")', 1, 1, 0),
        ('raise ValueError("x")', 0, 0, 0),
        ('TODO = "do it"\nraise InputError("x", expected="y", found="z", todo=TODO)', 1, 1, 0),
        ('TODO = ""\nraise InputError("x", expected="y", found="z", todo=TODO)', 1, 0, 0),
        ('raise InputError("x", expected="y", found="z", todo=UNKNOWN)', 1, 0, 0),
        (CHOICE.replace("OTHER", "b"), 1, 1, 0),
        (CHOICE.replace("OTHER", ""), 1, 0, 0),
        ('with advised("do it"):\n    raise InputError("x", expected="y", found="z")', 1, 1, 0),
    ],
)  # fmt: skip
def test_what_is_counted(source: str, errors: int, advised: int, faults: int, tmp_path: Path) -> None:
    assert share(source, tmp_path) == Share(errors, advised, faults)


HELPER = """
def fault(where, found, todo=""):
    return InputError(where, expected="y", found=found, todo=todo)
class Reader:
    def told(self, key, todo): return fault(key, "z", todo)
    def read(self):
        raise self.told("a", "do it")
"""


@pytest.mark.parametrize(
    ("calls", "errors", "advised"),
    [
        ("", 1, 1),
        ('raise fault("a", "z")', 2, 1),
        ('raise fault("a", "z", "")', 2, 1),
        ('raise fault("a", "z", "do it")\nraise fault("a", "z", todo="do it")', 3, 3),
    ],
)
def test_the_callers_of_a_helper_are_counted_in_its_place(
    calls: str, errors: int, advised: int, tmp_path: Path
) -> None:
    assert share(HELPER + calls, tmp_path) == Share(errors, advised, 0)


@pytest.mark.parametrize(
    ("call", "errors", "advised"),
    [
        ("read_json(1)", 1, 0),
        ('with advised("do it"):\n    read_json(1)', 1, 1),
        ("try:\n    read_json(1)\nexcept InputError:\n    pass", 0, 0),
        ("try:\n    pass\nexcept InputError:\n    read_json(1)", 1, 0),
    ],
)
def test_who_calls_a_reader_says_what_to_do(call: str, errors: int, advised: int, tmp_path: Path) -> None:
    assert share(f"from elastic_runtime.format.jsonfile import read_json\n{call}", tmp_path) == Share(
        errors, advised, 0
    )
    assert share(f"from elsewhere import read_json\n{call}", tmp_path) == Share()


def test_one_error_without_it_among_five_is_too_many(tmp_path: Path) -> None:
    told = 'InputError("x", expected="y", found="z", todo="do it")\n'
    assert share(told * 4, tmp_path).part >= FLOOR
    assert share(told * 4 + 'InputError("x", expected="y", found="z")\n', tmp_path).part < FLOOR


def share(source: str, folder: Path) -> Share:
    """Of a package that holds this source alone, beside the classes."""
    package = folder / "package"
    (package / "part").mkdir(parents=True, exist_ok=True)
    (package / "errors.py").write_text(CLASSES)
    (package / "part" / "source.py").write_text(source)
    return read_sources([package]).shares()["package/part"]
