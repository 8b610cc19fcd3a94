"""What prepare_peers takes of what it downloads; the network is not asked."""

from __future__ import annotations

import io
import sys
import tarfile
import urllib.request
from pathlib import Path

import pytest
from device_check import prepare_peers
from device_check.prepare_peers import MAMBA_SSM, compilers, fetch, lay_out


def archive(*names: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    return out.getvalue()


WANTED = [
    *(f"mamba_ssm/ops/triton/{name}.py" for name in prepare_peers._TRITON),
    *(f"mamba_ssm/utils/{name}.py" for name in prepare_peers._UTILS),
]


def test_only_the_files_that_are_imported_are_laid_out(tmp_path: Path) -> None:
    lay_out(MAMBA_SSM, archive(*(f"mamba_ssm-1/{name}" for name in [*WANTED, "mamba_ssm/__init__.py"])), tmp_path)
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == set(WANTED)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    data = archive(*(f"mamba_ssm-1/{name}" for name in WANTED[1:]))
    with pytest.raises(ValueError, match=rf"expected {WANTED[0]}, found none of these"):
        lay_out(MAMBA_SSM, data, tmp_path)


def test_other_bytes_than_the_pinned_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO(b"something else"))
    with pytest.raises(ValueError, match=f"expected SHA-256 {MAMBA_SSM.sha256}, found "):
        fetch(MAMBA_SSM)
    monkeypatch.setattr(sys, "argv", ["prepare_peers", str(tmp_path / "peers")])
    assert prepare_peers.main() == 1
    assert "prepare_peers: https://files.pythonhosted.org/" in capsys.readouterr().err
    assert not list((tmp_path / "peers").iterdir())


@pytest.mark.parametrize(("architecture", "own", "tma"), [("90", "90a", True), ("89", "89", False)])
def test_what_nvcc_is_asked(tmp_path: Path, architecture: str, own: str, tma: bool) -> None:
    (tmp_path / "causal_conv1d-1" / "csrc").mkdir(parents=True)
    commands = list(compilers(tmp_path, tmp_path / "out", architecture))
    names = [Path(command[command.index("-o") + 1]).name for command in commands]
    assert names == ["libpeer_flashinfer_ssu.so", "libpeer_flashinfer_attention.so", "libpeer_causal_conv1d.so"]
    assert [f"arch=compute_{own},code=sm_{own}" in command for command in commands[:2]] == [True, True]
    assert f"arch=compute_{architecture},code=sm_{architecture}" in commands[2]
    assert ("-DFLASHINFER_MAMBA_ENABLE_SM90" in commands[0]) == tma
    assert all(Path(command[-1]).is_file() for command in commands)
