"""The command lines of elastic-run and elastic_generate: one vocabulary; the page says what one alone has."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

import elastic_runtime
from elastic_runtime import Request
from elastic_runtime.cli.run import command
from elastic_runtime.errors import InputError

PAGE = (Path(__file__).parents[2] / "engines" / "README.md").read_text("utf-8")
#: Names that options of elastic_generate had.
OLD = {"--no-eos": "--ignore-eos", "--external-weights": "--weights-folder"}


def _run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=True, check=False)


def _options(page: str) -> dict[str, bool]:
    """The options that a --help lists, and whether each takes a value: one letter or sign after a single blank."""
    found = re.findall(r"^  (?:-\w, )?(--[a-z-]+)( \S)?", page, re.MULTILINE)
    return {name: bool(value) for name, value in found}


@pytest.fixture(scope="module")
def python() -> dict[str, bool]:
    return _options(CliRunner().invoke(command, ["--help"], terminal_width=200).output)


@pytest.fixture(scope="module")
def cpp(program: Path) -> dict[str, bool]:
    return _options(_run(program, "--help").stdout)


def _row(program: str) -> set[str]:
    """The options of one program alone, by the page."""
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{program}` alone |")]
    return set(re.findall(r"`(--[a-z-]+)", line))


def test_a_name_means_the_same_in_both_and_what_one_alone_has_is_on_the_page(
    python: dict[str, bool], cpp: dict[str, bool]
) -> None:
    both = python.keys() & cpp.keys()
    assert len(both) > 15
    assert {name: python[name] for name in both} == {name: cpp[name] for name in both}
    assert python.keys() - both == _row("elastic-run")
    assert cpp.keys() - both == _row("elastic_generate")
    assert not OLD.keys() & (python.keys() | cpp.keys())


def test_help_lists_what_is_taken_and_nothing_else(program: Path, cpp: dict[str, bool]) -> None:
    for name, value in cpp.items():
        if value:
            assert f"{name}: expected a value behind it" in _run(program, name).stderr
        else:
            assert f"{name}: expected no value, found x. Leave it out." in _run(program, f"{name}=x").stderr
    assert _run(program, "-h").stdout == _run(program, "--help").stdout


@pytest.mark.parametrize(("old", "name"), OLD.items())
def test_names_of_before_are_taken(program: Path, demo_bundle: Path, old: str, name: str) -> None:
    value = () if name == "--ignore-eos" else (demo_bundle,)
    given = [_run(program, demo_bundle, "--explain", "--vram", "1GiB", each, *value) for each in (old, name)]
    assert given[0].stdout == given[1].stdout
    assert given[0].stderr == given[1].stderr
    assert "expected a known option" not in given[0].stderr


def test_a_value_may_follow_an_equals_sign(program: Path, demo_bundle: Path) -> None:
    apart = _run(program, demo_bundle, "--explain", "--vram", "1GiB", "--context", "64")
    assert apart.returncode == 0
    assert _run(program, demo_bundle, "--explain", "--vram=1GiB", "--context=64").stdout == apart.stdout
    assert "--max-new: expected a whole number from 1, found a=b" in _run(program, "--max-new=a=b").stderr
    assert "--seed: expected a whole number from 0, found ." in _run(program, "--seed=").stderr
    assert "--nonsense: expected a known option" in _run(program, "--nonsense=1").stderr


def test_both_say_one_version(program: Path) -> None:
    asked = CliRunner().invoke(command, ["--version"]).output
    assert asked == f"elastic-run, version {elastic_runtime.__version__}\n"
    assert _run(program, "--version").stdout == asked.replace("elastic-run", "elastic_generate")


BEFORE = [
    (["--ids", "1", "--top-k", "-1"], "top_k: expected 0 (no limit) or more, found -1."),
    (["--ids", "1", "--temperature", "-1"], "temperature: expected a number from 0, found -1.0."),
    (["--ids", "1", "--stop", ""], "stop string: expected at least one character, found none."),
    (["--ids", "1", "--threads", "few"], "--threads: expected a whole number from 0, found few."),
    (["--ids", "1", "elsewhere"], "elsewhere: expected one bundle, found a second one."),
]


@pytest.mark.parametrize(("arguments", "text"), BEFORE)
def test_an_argument_is_refused_before_a_bundle_is_opened(
    program: Path, tmp_path: Path, arguments: list[str], text: str
) -> None:
    done = _run(program, tmp_path / "no-bundle", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"elastic_generate: {text}")


@pytest.mark.parametrize("threads", [-5, 100000, 99999999999, -99999999999])
def test_a_size_out_of_its_bounds_is_refused_in_the_same_words(program: Path, demo_bundle: Path, threads: int) -> None:
    with pytest.raises(InputError) as caught:
        Request(threads=threads)
    done = _run(program, demo_bundle, "--device", "cpu", "--ids", "1", "--threads", threads)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"elastic_generate: {caught.value}\n")


def test_a_dash_reads_the_prompt_from_standard_input(host_program: Path, demo_bundle: Path, twins: Path) -> None:
    common = [
        host_program, demo_bundle, "--device", "cpu", "--budget", "small", "--model", twins / "small.onnx",
        "--max-new", 4, "--print-ids", "--prompt",
    ]  # fmt: skip
    piped = subprocess.run([*map(str, common), "-"], input="Hello", capture_output=True, text=True, check=False)
    assert piped.stdout == _run(*common, "Hello").stdout != ""
