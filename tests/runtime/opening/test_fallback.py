"""What `auto` goes on to where an engine cannot run, what it says, and that a device asked for by name stays."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from elastic_runtime.backend import Floats
from elastic_runtime.bundle import Bundle
from elastic_runtime.driver.free_memory import Card
from elastic_runtime.errors import ElasticError, NoCudaError, UnavailableError
from elastic_runtime.format.manifest import EngineEntry, Plugin
from elastic_runtime.opening import LostError, Opener, candidates, loading, places
from elastic_runtime.ort.open_onnx import OnnxCard, plan_cpu
from elastic_runtime.session_request import Request
from elastic_runtime.tensorrt import open_tensorrt as engine_opening
from elastic_runtime.tensorrt import plugin_library
from elastic_runtime.tensorrt.open_tensorrt import select_engine
from plugin_libraries_folder import library_bytes, write_libraries

GIB = 1 << 30
CARD = Card("GeForce RTX 5080", "12.0", 16 * GIB, 15 * GIB)
NO_LIBRARY = "expected elastic-plugins for {}, which carries no library, found no such package."


class Backend:
    """Of an engine or of onnxruntime; nothing is computed."""

    max_tokens, max_context, max_batch, vocab_size = 64, 2048, 2, 264

    def __init__(self, name: str, device: str, what: str) -> None:
        self.name, self.device, self.what = name, device, what

    def start(self, batch: int) -> None:
        pass

    def call(self, *arguments: Any) -> Floats:
        raise AssertionError("a backend that is only opened was called")

    def memory(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


def _plugin(engine: EngineEntry) -> EngineEntry:
    """The plugin engine that stands beside a native one; it takes a little less."""
    file, plugin = engine.file.replace(".engine", ".plugin.engine"), Plugin("libelastic_plugins.so", "rtx-1.7")
    return replace(engine, ops="plugin", plugin=plugin, file=file, activation=engine.activation - 1)


@pytest.fixture
def both(demo_bundle: Path) -> Bundle:
    """The demo with a plugin and a native engine each."""
    bundle = Bundle.open(demo_bundle)
    budgets = (replace(b, engines=(*map(_plugin, b.engines), *b.engines)) for b in bundle.manifest.budgets)
    return replace(bundle, manifest=replace(bundle.manifest, budgets=tuple(budgets)))


@pytest.fixture
def plugin_only(both: Bundle) -> Bundle:
    budgets = (replace(b, engines=b.engines[:1]) for b in both.manifest.budgets)
    return replace(both, manifest=replace(both.manifest, budgets=tuple(budgets)))


Opened = tuple[str, str, str, list[str]]
Make = Callable[..., tuple[Opener, list[str]]]
Open = Callable[..., Opened]


@pytest.fixture
def make(both: Bundle, monkeypatch: pytest.MonkeyPatch) -> Make:
    """`make(bundle, cuda=…, installed=…, refuses=…, **request)`: an opener, and the list of what it says.

    No engine loads whose file's name ends with `refuses`.
    """

    def ask(
        bundle: Bundle, *, cuda: bool = True, installed: Path | None = None, refuses: str = "none", **request: Any
    ) -> tuple[Opener, list[str]]:
        said = list[str]()

        def engine(bundle: Bundle, budget: Any, wishes: Any, card: Card, **rest: Any) -> Any:
            file = select_engine(budget, wishes, card).file
            if file.endswith(refuses):
                raise UnavailableError("the engine", expected="TensorRT to run it", found="an old driver")
            return Backend("tensorrt-rtx", "gpu", file)

        def onnx(bundle: Bundle, budget: Any, *, place: Any, **rest: Any) -> Any:
            return Backend("onnxruntime", "cpu" if place is None else "gpu", budget.name)

        def onnx_card(found: Card, **rest: Any) -> Any:
            if not cuda:
                raise NoCudaError("onnxruntime without one")
            return OnnxCard(found, found.free)

        libraries = None if installed is None else plugin_library.read_libraries(installed)
        monkeypatch.setattr(plugin_library, "installed_libraries", lambda: libraries)
        monkeypatch.setattr(places, "find_card", lambda: CARD)
        monkeypatch.setattr(places, "card", lambda: CARD)
        monkeypatch.setattr(places, "onnx_card", onnx_card)
        monkeypatch.setattr(loading, "open_onnx", onnx)
        monkeypatch.setattr(engine_opening, "open_tensorrt", engine)
        monkeypatch.setattr(engine_opening, "read_checked", lambda *_: b"vtrt")
        monkeypatch.setattr(engine_opening, "installed_version", lambda: both.budgets[0].engines[0].version)
        return Opener(bundle, Request(**request), say=said.append), said

    return ask


@pytest.fixture
def run(make: Make) -> Open:
    """As `make`, and opens: backend, device, what was opened, what was said."""

    def ask(bundle: Bundle, **how: Any) -> Opened:
        opener, said = make(bundle, **how)
        with opener.open() as session:
            backend: Any = session.backend
            return backend.name, backend.device, backend.what, said

    return ask


def test_the_plugin_engine_runs_where_its_library_is(both: Bundle, run: Open, tmp_path: Path) -> None:
    installed = write_libraries(tmp_path / "installed", library_bytes("one"))
    assert run(both, installed=installed) == ("tensorrt-rtx", "gpu", "large/rtx5080.plugin.engine", [])
    assert run(both, plugin_folder=installed)[2] == "large/rtx5080.plugin.engine"


@pytest.mark.parametrize("request_", [{}, {"device": "gpu"}, {"backend": "tensorrt-rtx"}])
def test_a_native_engine_takes_its_place_without_one(both: Bundle, run: Open, request_: dict[str, str]) -> None:
    *found, said = run(both, **request_)
    assert found == ["tensorrt-rtx", "gpu", "large/rtx5080.engine"]
    (warning,) = said
    assert warning.startswith("warning: large/rtx5080.engine in place of large/rtx5080.plugin.engine: libelastic_plug")
    assert NO_LIBRARY.format("large/rtx5080.plugin.engine") in warning
    assert warning.endswith(
        "Pip install elastic-plugins, or build plugins/ with CMake and name its folder with --plugins."
    )


def test_then_onnxruntime_on_the_card_then_the_cpu(plugin_only: Bundle, run: Open) -> None:
    *found, said = run(plugin_only)
    assert found == ["onnxruntime", "gpu", "large"]
    (warning,) = said
    assert warning.startswith(
        "running on GeForce RTX 5080 with onnxruntime, in float32 arithmetic; no engine runs here:"
    )
    assert NO_LIBRARY.format("large/rtx5080.plugin.engine") in warning
    *found, said = run(plugin_only, cuda=False)
    assert found == ["onnxruntime", "cpu", "large"]
    (warning,) = said
    assert warning.startswith(
        "GeForce RTX 5080: running on the CPU with onnxruntime, in float32 arithmetic; on the card"
    )
    assert "found onnxruntime without one; no engine runs here: libelastic_plugins.so" in warning


def test_what_was_asked_for_by_name_stays(plugin_only: Bundle, run: Open) -> None:
    with pytest.raises(UnavailableError, match="found no such package"):
        run(plugin_only, backend="tensorrt-rtx")
    assert run(plugin_only, device="gpu")[:2] == ("onnxruntime", "gpu")
    with pytest.raises(UnavailableError, match=r"^onnxruntime on a card: .* without one; no engine runs here: libel"):
        run(plugin_only, device="gpu", cuda=False)
    assert run(plugin_only, device="cpu")[:2] == ("onnxruntime", "cpu")


def test_an_engine_that_only_loading_shows_not_to_run_is_left_as_well(both: Bundle, run: Open) -> None:
    *found, said = run(both, refuses=".engine")
    assert found == ["onnxruntime", "gpu", "large"]
    assert said[-1].endswith("no engine runs here: the engine: expected TensorRT to run it, found an old driver.")
    with pytest.raises(UnavailableError, match="an old driver"):
        run(both, refuses=".engine", backend="tensorrt-rtx")


def test_the_native_engine_takes_the_place_of_one_that_does_not_load(both: Bundle, make: Make, tmp_path: Path) -> None:
    installed = write_libraries(tmp_path / "installed", library_bytes("one"))
    opener, said = make(both, installed=installed, refuses=".plugin.engine", budget="small", context=64)
    session = opener.open()
    backend: Any = session.backend
    assert backend.what == "small/rtx5080.engine"
    warning = "warning: {0}/rtx5080.engine in place of {0}/rtx5080.plugin.engine: the engine: expected TensorRT to run"
    assert [text.startswith(warning.format("small")) for text in said] == [True]
    session.close()


@pytest.mark.parametrize(("cuda", "device"), [(True, "gpu"), (False, "cpu")])
@pytest.mark.parametrize("how", [{}, {"refuses": ".engine"}])
def test_a_session_that_no_engine_serves_switches_where_it_runs(
    plugin_only: Bundle, both: Bundle, make: Make, cuda: bool, device: str, how: dict[str, Any]
) -> None:
    opener, _ = make(both if how else plugin_only, cuda=cuda, budget="small", context=64, **how)
    session, _, cost = opener.switch(opener.open(), "medium")
    backend: Any = session.backend
    assert (backend.name, backend.device, backend.what, cost.budget) == ("onnxruntime", device, "medium", "medium")
    session.close()


def test_a_named_budget_without_room_on_the_cpu_names_one_that_has(
    plugin_only: Bundle, run: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = {b.name: _cpu_bytes(plugin_only, b.name) for b in plugin_only.budgets}
    assert needs["small"] < needs["large"]
    monkeypatch.setattr(candidates, "free_ram", lambda: needs["small"])
    with pytest.raises(ElasticError) as caught:
        run(plugin_only, cuda=False, budget="large", context=64)
    assert "Take the budget small, which fits, a smaller context, or run its engine on a card." in str(caught.value)
    assert run(plugin_only, cuda=False, context=64)[2] == "small"


def _cpu_bytes(bundle: Bundle, name: str) -> int:
    plan = plan_cpu(bundle, bundle.budget(name), context=64, rows=1, weights="auto", free=0)
    return plan.need.least("auto")


def test_what_is_explained_is_what_opening_takes(both: Bundle, make: Make, tmp_path: Path) -> None:
    installed = write_libraries(tmp_path / "installed", library_bytes("one"))
    head, *lines = make(both, installed=installed)[0].explain().splitlines()
    assert head == "15.0 GiB, 1 tokens or more x 1:"
    assert [line.rsplit(": ", 1)[1] for line in lines] == ["chosen", "fits", "fits"]
    opener, said = make(both)
    chosen, *lines = opener.explain().splitlines()[1:]
    assert chosen.endswith(": chosen")
    assert lines[2].startswith("large/rtx5080.plugin.engine does not run here: libelastic_plugins.so: expected")
    assert len(lines) == 5
    assert said == []
    opener.open().close()
    assert said[0].startswith("warning: large/rtx5080.engine in place of large/rtx5080.plugin.engine")


@pytest.mark.parametrize(("cuda", "where"), [(True, "GeForce RTX 5080"), (False, "the CPU")])
@pytest.mark.parametrize("how", [{}, {"vram": GIB * 12}])
def test_no_engine_is_marked_as_chosen_that_cannot_run(
    plugin_only: Bundle, make: Make, cuda: bool, where: str, how: dict[str, int]
) -> None:
    opener, said = make(plugin_only, cuda=cuda, **how)
    _, *lines = opener.explain().splitlines()
    assert lines[:3] == [f"  {name}: no engine that runs here" for name in ("large", "medium", "small")]
    assert NO_LIBRARY.format("large/rtx5080.plugin.engine") in lines[3]
    assert lines[6:] == [f"what runs here instead: large on {where} with onnxruntime, in float32 arithmetic"]
    assert said == []
    opener.open().close()
    assert opener.budget == plugin_only.budget("large")


def test_where_nothing_runs_the_explanation_says_so(plugin_only: Bundle, make: Make) -> None:
    opener, _ = make(plugin_only, backend="tensorrt-rtx")
    assert opener.explain().splitlines()[-1].startswith("nothing runs here: libelastic_plugins.so: expected elastic")


@pytest.mark.parametrize("native", [True, False])
def test_a_switch_takes_the_next_engine_where_one_does_not_load(
    both: Bundle, plugin_only: Bundle, make: Make, tmp_path: Path, native: bool
) -> None:
    """The native one beside it. Where there is none the session would leave the card: the old budget opens again."""
    installed = write_libraries(tmp_path / "installed", library_bytes("one"))
    bundle = both if native else plugin_only
    opener, said = make(bundle, installed=installed, refuses="medium/rtx5080.plugin.engine", budget="small", context=64)
    session = opener.open()
    if native:
        session, _, cost = opener.switch(session, "medium")
        assert cost.budget == "medium"
        assert [text.partition(": ")[2].partition(":")[0] for text in said] == [
            "medium/rtx5080.engine in place of medium/rtx5080.plugin.engine"
        ]
    else:
        with pytest.raises(UnavailableError, match="an old driver"):
            opener.switch(session, "medium")
    backend: Any = session.backend
    assert backend.what == ("medium/rtx5080.engine" if native else "small/rtx5080.plugin.engine")
    assert opener.budget
    assert opener.budget.name == ("medium" if native else "small")
    session.close()


def test_a_switch_that_fails_opens_no_other_form_of_the_old_budget(both: Bundle, make: Make) -> None:
    """The opener would hold it for the one that was open."""
    eight = [
        replace(b, name=f"{b.name}.int8", quantisation="int8", engines=(replace(b.engines[1], file=f"{b.name}.int8"),))
        for b in both.manifest.budgets
    ]
    bundle = replace(both, manifest=replace(both.manifest, budgets=(*both.manifest.budgets, *eight)))
    opener, _ = make(bundle, budget="small", context=64)
    session = opener.open()
    assert opener.budget is not None
    assert opener.budget.name == "small"
    make(bundle, refuses=".engine")
    with pytest.raises(LostError, match="expected budget 'small' to open again, found the engine: expected TensorRT"):
        opener.switch(session, "medium.bf16")


@pytest.mark.parametrize("trusted", [False, True])
def test_on_windows_the_native_engine_serves_and_it_is_said_why(
    both: Bundle, run: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    installed = write_libraries(tmp_path / "installed", library_bytes("one"))
    monkeypatch.setattr(sys, "platform", "win32")
    *found, said = run(both, installed=installed, trust_engine=trusted)
    assert found == ["tensorrt-rtx", "gpu", "large/rtx5080.engine"]
    assert said == [
        "warning: large/rtx5080.engine in place of large/rtx5080.plugin.engine: large/rtx5080.plugin.engine: expected "
        "a plugin library for win32, found elastic-plugins, which are for Linux. Take an engine of native ops: export "
        "with --ops native."
    ]
