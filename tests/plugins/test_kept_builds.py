"""Kept builds go with their sources, and not while somebody works with them."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from kept_builds import PREFIX, claimed


def folders(parent: Path) -> set[str]:
    return {path.name.removeprefix(PREFIX) for path in parent.glob(f"{PREFIX}*/")}


def test_a_build_stays_with_its_sources_and_goes_with_them(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}from_before_there_were_claims" / "library").mkdir(parents=True)
    (tmp_path / "another_cache").mkdir()
    with claimed(tmp_path, "one") as folder:
        (folder / "library").mkdir()
        (folder / "library" / "built").touch()
    with claimed(tmp_path, "one") as folder:
        assert (folder / "library" / "built").exists()
    assert folders(tmp_path) == {"one"}
    with claimed(tmp_path, "two"):
        assert folders(tmp_path) == {"two"}
    assert (tmp_path / "another_cache").exists()


def test_what_another_works_with_stays_until_all_have_let_go(tmp_path: Path) -> None:
    with ExitStack() as first, ExitStack() as second:
        mine = first.enter_context(claimed(tmp_path, "old"))
        assert second.enter_context(claimed(tmp_path, "old")) == mine
        for stack in (first, second):
            with claimed(tmp_path, "new"):
                assert folders(tmp_path) == {"old", "new"}
            stack.close()
        with claimed(tmp_path, "new"):
            assert folders(tmp_path) == {"new"}


_WORK = """
import sys
from pathlib import Path
from kept_builds import claimed
for turn in range(60):
    with claimed(Path(sys.argv[1]), f"of_{(turn + int(sys.argv[2])) % 3}") as folder:
        (folder / "made").touch()
        assert (folder / "made").exists()
"""


def test_processes_that_claim_and_remove_at_once_leave_each_other_whole(tmp_path: Path) -> None:
    def work(number: int) -> str:
        command = [sys.executable, "-c", _WORK, str(tmp_path), str(number)]
        return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False).stderr

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [""] * 4
    assert len(folders(tmp_path)) <= 4
