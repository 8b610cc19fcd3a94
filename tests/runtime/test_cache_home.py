"""Where caches lie, also for a user whom the system does not know, and that nothing else is left in a home."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from elastic_runtime.cache_home import cache_home
from elastic_runtime.errors import BuildError


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME, and no entry of the user, as `docker run --user 12345` has it."""

    def unknown(_: object) -> None:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


def test_the_order_of_the_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_home({}, "x") == tmp_path / ".cache" / "x"
    assert cache_home({"XDG_CACHE_HOME": "/xdg"}, "x") == Path("/xdg/x")
    assert cache_home({"XDG_CACHE_HOME": ""}, "x") == tmp_path / ".cache" / "x"
    assert cache_home({"XDG_CACHE_HOME": "/xdg", "ELASTIC_CACHE": "/own"}, "x") == Path("/own")
    assert cache_home({"ELASTIC_CACHE": "~/own"}, "x") == tmp_path / "own"


def test_on_windows_the_applications_folder_is_the_usual_place(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"LOCALAPPDATA": "/users/ann/AppData/Local"}
    assert cache_home(environ, "x").parts[-2:] == (".cache", "x")
    monkeypatch.setattr(sys, "platform", "win32")
    assert cache_home(environ, "x") == Path("/users/ann/AppData/Local/x")
    assert cache_home(environ | {"XDG_CACHE_HOME": "/xdg"}, "x") == Path("/xdg/x")
    assert cache_home(environ | {"ELASTIC_CACHE": "/own"}, "x") == Path("/own")
    assert cache_home({"LOCALAPPDATA": ""}, "x").parts[-2:] == (".cache", "x")


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("environ", [{}, {"ELASTIC_CACHE": "~/own"}, {"XDG_CACHE_HOME": "~/.cache"}])
def test_a_user_without_a_home_hears_what_to_set(environ: dict[str, str]) -> None:
    with pytest.raises(BuildError, match=r"expected a home folder, found none: HOME is not set, .* with ELASTIC_CACHE"):
        cache_home(environ, "x")


@pytest.mark.usefixtures("nobody")
def test_a_user_without_a_home_who_names_a_folder_needs_none() -> None:
    assert cache_home({"ELASTIC_CACHE": "/own"}, "x") == Path("/own")
    assert cache_home({"XDG_CACHE_HOME": "/xdg"}, "x") == Path("/xdg/x")


_LOAD = (
    "from elastic_runtime.ort.library import onnxruntime as o; import os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
)


@pytest.mark.parametrize(("given", "found"), [(None, "1"), ("0", "0")])
def test_telemetry_is_off_unless_somebody_wants_it(tmp_path: Path, given: str | None, found: str) -> None:
    environ = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    environ |= {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    environ |= {} if given is None else {"ORT_DISABLE_TELEMETRY": given}
    done = subprocess.run([sys.executable, "-c", _LOAD], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found
    if given is None:
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_nobody_loads_onnxruntime_past_it() -> None:
    roots = [Path(sys.modules[name].__path__[0]) for name in ("elastic_runtime",)]
    import elastic_export

    roots.append(Path(elastic_export.__path__[0]))
    found = [p for root in roots for p in root.rglob("*.py") if _imports(p)]
    assert [p.name for p in found] == ["library.py"]


def _imports(path: Path) -> bool:
    lines = path.read_text("utf-8").splitlines()
    return any(line.strip().startswith(("import onnxruntime", "from onnxruntime")) for line in lines)
