"""Stage `kernels`: why the check of the kernels was not run, and what becomes of its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.stages import kernels
from elastic_runtime.errors import BuildError

Program = Callable[[str, str], Path]
PLUGINS = Path(__file__).parents[4] / "plugins"


def _sources(tmp_path: Path, body: str) -> Path:
    """A device_check of a few lines, where a checkout has it."""
    folder = tmp_path / "plugins" / "device_check"
    folder.mkdir(parents=True)
    head = "import json, pathlib, sys\nreport = pathlib.Path(sys.argv[2]) / 'report.json'\nreport.parent.mkdir()\n"
    (folder / "__main__.py").write_text(f"{head}{body}\n")
    return folder.parent


@pytest.fixture(autouse=True)
def _compiler(program: Program) -> None:
    program("nvcc", "exit 1")


def test_the_sources_of_this_checkout_are_what_it_takes() -> None:
    assert kernels.find_check(PLUGINS) == PLUGINS / "device_check" / "__main__.py"


def test_without_sources_it_says_where_to_get_them(tmp_path: Path) -> None:
    found = kernels.run(Place(tmp_path, tmp_path, sources=tmp_path))
    assert found == {
        "not_run": f"no sources of the plugins in {tmp_path}: name a checkout's plugins/ with --plugin-sources"
    }


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = kernels.run(Place(tmp_path, tmp_path, sources=PLUGINS))
    assert found == {"not_run": "no nvcc on the PATH: install the CUDA toolkit, or put its bin/ there"}


@pytest.mark.parametrize("passed", [True, False])
def test_its_report_is_brought_home_whatever_it_says(tmp_path: Path, passed: bool) -> None:
    body = (
        f"open(report, 'w').write(json.dumps({{'passed': {passed}, 'machine': 'H100'}})); sys.exit({int(not passed)})"
    )
    found = kernels.run(Place(tmp_path, tmp_path, sources=_sources(tmp_path, body)))
    assert found == {"report": {"passed": passed, "machine": "H100"}}


def test_what_the_machine_lacks_is_no_failure(tmp_path: Path) -> None:
    body = "print('device_check: expected CMake. Nothing was run.', file=sys.stderr); sys.exit(2)"
    found = kernels.run(Place(tmp_path, tmp_path, sources=_sources(tmp_path, body)))
    assert found == {"not_run": "device_check: expected CMake. Nothing was run."}


def test_an_end_without_a_report_is_one(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"__main__\.py: expected a report, found none, it ended with 5"):
        kernels.run(Place(tmp_path, tmp_path, sources=_sources(tmp_path, "sys.exit(5)")))


def test_what_it_said_is_in_the_log_also_where_it_was_ended(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    body = "import os, signal; print('case_runner: 90 cases'); os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(BuildError, match="it ended with -9"):
        kernels.run(Place(tmp_path, tmp_path, sources=_sources(tmp_path, body)))
    assert capfd.readouterr().out == "case_runner: 90 cases\n"
