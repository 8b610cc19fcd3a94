"""What `--ops` comes to: which engines are built, with which library inside, and what is said of it."""

from __future__ import annotations

import pwd
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from elastic_export.plan import ops_modes
from elastic_export.plan.ops_modes import OpsPlan, built_folder, find_libraries, plan_ops
from elastic_export.products import TENSORRT_RTX
from elastic_runtime.errors import BuildError, InputError
from plugin_libraries_folder import library_bytes, write_libraries
from small_export import ARCH

ATTENTION = replace(ARCH, pattern="*-", mamba_heads=())
PLUGIN_FREE = replace(ARCH, pattern="-", mamba_heads=())
Ask = Callable[..., OpsPlan]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ask:
    """`ask(wish, capabilities…, installed=a folder, named=a folder)`, where nothing was built before."""
    monkeypatch.setenv("ELASTIC_CACHE", str(tmp_path / "cache"))

    def plan(
        wish: str,
        *capabilities: str,
        installed: Path | None = None,
        named: Path | None = None,
        model: object = ARCH,
        precision: str = "bf16",
        contexts: tuple[int, ...] = (2048,),
    ) -> OpsPlan:
        found = None if installed is None else ops_modes.read_libraries(installed)
        monkeypatch.setattr(ops_modes, "installed_libraries", lambda: found)
        wanted = [(name,) for name in capabilities or ("12.0",)]
        return plan_ops(wish, named, TENSORRT_RTX, [model], precision, wanted, contexts)  # type: ignore[arg-type,list-item]

    return plan


def test_a_library_makes_plugin_engines_that_carry_it(ask: Ask, tmp_path: Path) -> None:
    folder = write_libraries(tmp_path / "installed", library_bytes("one"), abi="enterprise-11.1")
    for wish in ("auto", "plugin"):
        plan = ask(wish, installed=folder)
        assert (plan.modes, plan.note) == (("plugin",), "")
        library = plan.libraries[("12.0",)]
        assert library.path == folder / "libelastic_plugins.0.so"
        assert (library.entry.abi, library.entry.architectures) == ("enterprise-11.1", ("120-real",))
    assert ask("plugin,native", installed=folder).modes == ("plugin", "native")
    assert ask("auto", named=folder).libraries


def test_without_one_a_native_engine_is_built_beside(ask: Ask, tmp_path: Path) -> None:
    plan = ask("auto")
    assert (plan.modes, plan.libraries) == (("plugin", "native"), {})
    assert plan.note.startswith(
        "no plugin library here: plugin engines run only where elastic-plugins is; a native one"
    )
    assert ask("plugin").note.startswith(
        "no plugin library here: plugin engines run only where elastic-plugins is. Inst"
    )
    other = write_libraries(tmp_path / "other", library_bytes("one"), architectures=["89-real"])
    plan = ask("auto", "8.9", "12.0", installed=other)
    assert plan.modes == ("plugin", "native")
    assert set(plan.libraries) == {("8.9",)}
    assert "no plugin library for compute capability 12.0 here" in plan.note


def test_native_engines_want_none(ask: Ask, tmp_path: Path) -> None:
    assert ask("native") == OpsPlan(("native",), {})
    assert ask("auto", model=PLUGIN_FREE) == OpsPlan(("native",), {})
    assert ask("auto", model=ATTENTION, precision="fp32") == OpsPlan(("native",), {})
    assert ask("auto", model=ATTENTION).modes == ("plugin", "native")
    plan = ask("auto", model=replace(ARCH, ssm_state=300))
    assert plan.modes == ("native",)
    assert plan.note == "native engines alone: the plugin takes a state size of 1 to 256, the model has 300"
    with pytest.raises(InputError, match="--plugins: expected engines with plugins, found --ops native"):
        ask("native", named=tmp_path)


def test_auto_leaves_native_engines_out_where_their_attention_ends(ask: Ask, tmp_path: Path) -> None:
    """And says so; where a plugin engine carries its library nothing is left out."""
    long = 24576 - ARCH.attention_head_dim + 1
    plan = ask("auto", contexts=(long, 1 << 17))
    assert (plan.modes, plan.builds("plugin", 1 << 17)) == (("plugin",), True)
    assert plan.note.startswith(
        "no plugin library here: plugin engines run only where elastic-plugins is; none of native ops beside them, "
        f"whose attention takes up to {long - 1} tokens. Install"
    )
    plan = ask("auto", contexts=(2048, long - 1, 1 << 17))
    assert plan.modes == ("plugin", "native")
    assert [context for context in (2048, long - 1, 1 << 17) if plan.builds("native", context)] == [2048, long - 1]
    assert f"a native one beside each of up to {long - 1} tokens, which is all that" in plan.note
    assert ask("auto", contexts=(1 << 17,), precision="fp32").modes == ("plugin", "native")
    folder = write_libraries(tmp_path / "installed", library_bytes("one"))
    assert ask("auto", contexts=(1 << 17,), installed=folder) == ask("plugin", contexts=(1 << 17,), installed=folder)


def test_modes_that_are_named_are_built_for_every_context(ask: Ask) -> None:
    plan = ask("plugin,native", contexts=(1 << 17,))
    assert plan.modes == ("plugin", "native")
    assert plan.builds("native", 1 << 17)  # and refused, by the limits of native engines


def test_a_named_folder_must_serve(ask: Ask, tmp_path: Path) -> None:
    other = write_libraries(tmp_path / "other", library_bytes("one"), architectures=["89-real"])
    with pytest.raises(InputError, match=r"expected a plugin library for compute capability 12\.0, found none"):
        ask("auto", named=other)
    with pytest.raises(InputError, match=r"expected libraries\.json or a library of elastic plugins"):
        ask("plugin", named=tmp_path / "nowhere")
    swapped = write_libraries(tmp_path / "swapped", library_bytes("one"))
    (swapped / "libelastic_plugins.0.so").write_bytes(library_bytes("two"))
    with pytest.raises(BuildError, match=r"as its libraries\.json says, found"):
        ask("auto", named=swapped)


def test_a_library_of_an_older_version_goes_into_no_engine(ask: Ask, tmp_path: Path) -> None:
    """It has a plugin of the mixer and none of attention: TensorRT would look for that and find none."""
    older = library_bytes("old", ops={"Mamba2Mixer": "1"})
    plan = ask("auto", installed=write_libraries(tmp_path / "older", older))
    assert (plan.modes, plan.libraries) == (("plugin", "native"), {})
    assert plan.note.startswith("no plugin library of this version here: plugin engines run only where")
    text = "expected plugins of CachedAttention 1, Mamba2Mixer 1, found plugins of Mamba2Mixer 1. Build it again"
    with pytest.raises(InputError, match=text):
        ask("plugin", named=tmp_path / "older")
    assert ask("plugin", named=tmp_path / "older", precision="fp32").libraries  # whose attention is native
    newer = library_bytes("new", ops={"Mamba2Mixer": "1", "CachedAttention": "1", "More": "2"})
    assert ask("auto", installed=write_libraries(tmp_path / "newer", newer)).libraries


def test_named_then_installed_then_built(ask: Ask, tmp_path: Path) -> None:
    folders = {name: write_libraries(tmp_path / name, library_bytes(name)) for name in ("named", "installed")}
    built = write_libraries(tmp_path / "cache" / "plugins", library_bytes("built"))
    ask("auto", installed=folders["installed"])
    found = [find_libraries(folders["named"]), find_libraries(None)]
    ask("auto")
    found.append(find_libraries(None))
    assert [libraries.path for libraries in found if libraries] == [folders["named"], folders["installed"], built]


@pytest.mark.parametrize("place", [{}, {"ELASTIC_CACHE": "~/own"}, {"XDG_CACHE_HOME": "~/.cache"}])
def test_without_a_home_nothing_was_built_before(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, place: dict[str, str]
) -> None:
    """As in a container that runs under any user's number: a checkpoint that is named needs no home."""

    def unknown(_: object) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "ELASTIC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    assert built_folder() is None
    assert ask("auto").modes == ("plugin", "native")
