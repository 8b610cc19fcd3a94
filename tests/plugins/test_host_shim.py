"""The shim itself: right kernels run right, each kind of fault shows, its narrow types round as the real ones do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from mamba2_mixer.testing.runner import HostBuild
from shim_probe import build_probe


@pytest.fixture(scope="module")
def probe(case_objects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_probe(HostBuild(), case_objects, tmp_path_factory.mktemp("shim_probe"))


def run(probe: Path, what: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(probe), what], input=data, capture_output=True, check=False)


def test_barriers_and_shuffles(probe: Path) -> None:
    done = run(probe, "good")
    low, high = float(sum(range(32))), float(sum(range(32, 64)))
    assert [float(v) for v in done.stdout.split()] == [high] * 32 + [low] * 32


def test_shuffles_up_and_from_one_lane(probe: Path) -> None:
    found = [float(v) for v in run(probe, "shuffles").stdout.split()]
    warp = [i // 32 for i in range(64)]
    assert found == [100 * (i if i % 32 < 3 else i - 3) + 32 * w + 5 + 10000 * w for i, w in enumerate(warp)]


def test_a_copy_of_nothing_brings_zeros(probe: Path) -> None:
    assert [float(v) for v in run(probe, "zeros").stdout.split()] == [float(i % 3 != 0) for i in range(64)]


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("past_the_end", b"heap-buffer-overflow"),
        ("global_past_the_end", b"heap-buffer-overflow"),
        ("half_a_barrier", b"host shim: threads wait for each other"),
        ("meetings_at_two_barriers", b"host shim: threads of one block wait at different barriers"),
        ("one_meeting_of_two", b"host shim: threads wait for each other"),
        ("meetings_of_half_a_block", b"host shim: a barrier of another number of threads than the block has"),
        ("copy_from_odd_place", b"host shim: a copy that is not aligned to its width"),
        ("copy_to_odd_place", b"host shim: a copy that is not aligned to its width"),
        ("copy_left_behind", b"host shim: a thread ends with copies under way"),
    ],
)
def test_faults_end_the_process(probe: Path, what: str, says: bytes) -> None:
    done = run(probe, what)
    assert done.returncode != 0
    assert says in done.stderr


def test_a_thread_may_end_with_a_group_of_no_copies(probe: Path) -> None:
    assert [float(v) for v in run(probe, "empty_group").stdout.split()] == [1.0] * 64


def test_warps_meet_from_different_places(probe: Path) -> None:
    assert [float(v) for v in run(probe, "meetings").stdout.split()] == [1.0] * 64


def test_unwritten_shared_memory_is_nan(probe: Path) -> None:
    assert np.isnan([float(v) for v in run(probe, "missing_barrier").stdout.split()]).any()


def test_narrow_types_round_as_the_real_ones(probe: Path) -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 65536, np.uint32)
    halves = (rng.standard_normal(65536) * np.exp2(rng.integers(-26, 18, 65536))).astype(np.float32)
    # Ties, overflow, the border of the normal range, infinities.
    edges = np.array(
        [65519, 65520, -65520, 2**-14, 2**-24, 2**-25, 3 * 2**-25, 1 + 2**-11, 1 + 3 * 2**-11, np.inf, 0.0, -0.0]
    )
    for values in (bits.view(np.float32), halves, np.resize(edges.astype(np.float32), 65536)):
        out = run(probe, "convert", values.tobytes()).stdout
        narrow = np.frombuffer(out, np.uint16, 2 * 65536).reshape(-1, 2)
        real = ~np.isnan(values)
        with np.errstate(over="ignore", invalid="ignore"):
            np.testing.assert_array_equal(narrow[real, 0], values.astype(np.float16).view(np.uint16)[real])
            np.testing.assert_array_equal(narrow[real, 1], values.astype(ml_dtypes.bfloat16).view(np.uint16)[real])
        assert np.isnan(narrow[~real, 0].view(np.float16)).all()
    wide = np.frombuffer(out, np.float32, 2 * 65536, narrow.nbytes).reshape(-1, 2)
    every = np.arange(65536, dtype=np.uint16)
    np.testing.assert_array_equal(wide[:, 0], every.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(wide[:, 1], every.view(ml_dtypes.bfloat16).astype(np.float32))
