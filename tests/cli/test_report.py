"""`elastic-export report`: where the page goes, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


def test_the_page_stands_beside_the_bundle(demo_bundle: Path, tmp_path: Path, run) -> None:
    shutil.copytree(demo_bundle, tmp_path / "bundle", copy_function=shutil.copyfile)
    code, out, _ = run("report", str(tmp_path / "bundle"))
    assert (code, out.strip()) == (0, str(tmp_path / "bundle.html"))
    page = (tmp_path / "bundle.html").read_text("utf-8")
    assert page.lstrip().startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert run("report", str(tmp_path / "bundle"))[0] == 0, "a second one replaces it"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "bundle.html"]


def test_a_place_of_its_own(demo_bundle: Path, tmp_path: Path, run) -> None:
    code, out, _ = run("report", str(demo_bundle), "--output", str(tmp_path / "p.html"))
    assert (code, out.strip()) == (0, str(tmp_path / "p.html"))
    assert (tmp_path / "p.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{tmp}/none"], "none"),
        (
            ["{bundle}", "--output", "{bundle}/small/p.html"],
            "--output: expected a place outside of the bundle, which holds its own files alone, found {bundle}/small/",
        ),
        (["{bundle}", "--output", "{bundle}/manifest.json"], "found {bundle}/manifest.json. Leave it out, or name"),
        (["{bundle}", "--output", "{tmp}/no/p.html"], r"p.html: expected a file that can be written, found No such"),
    ],
)
def test_what_is_refused_leaves_nothing(
    demo_bundle: Path, tmp_path: Path, run, arguments: list[str], told: str
) -> None:
    before = (demo_bundle / "manifest.json").read_bytes()
    code, out, err = run("report", *(word.format(tmp=tmp_path, bundle=demo_bundle) for word in arguments))
    assert code == 2
    assert told.format(bundle=demo_bundle) in err
    assert (demo_bundle / "manifest.json").read_bytes() == before
    assert not out
    assert not list(tmp_path.iterdir())
