"""Fetches the public kernels that ours are timed beside, and compiles those that need it; no GPU is needed.

    python plugins/device_check/prepare_peers.py FOLDER [--architecture 90]

From PyPI at pinned versions and digests: mamba-ssm (its Triton files are only laid out), causal-conv1d and FlashInfer
(compiled by nvcc with the few lines of `peers/`). None of it is part of this project; FOLDER travels to the card.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
_FILES = "https://files.pythonhosted.org/packages/"


@dataclass(frozen=True)
class Source:
    """A distribution on PyPI."""

    name: str
    url: str
    sha256: str


MAMBA_SSM = Source(
    "mamba-ssm 2.3.2.post1",
    _FILES + "af/48/aa7bec0efc7453fa0512276c0069c854bf684219050294266534bfef34bb/mamba_ssm-2.3.2.post1.tar.gz",
    "104cc47e9101e5401a675fa2b784f2952b9b037f3b1dd83b5ac544394e95d028",
)
CAUSAL_CONV1D = Source(
    "causal-conv1d 1.7.0",
    _FILES + "f4/d1/eba27735f31bd5527d39a3c7f693e6ded7b844cab275db719a15ad37b6cd/causal_conv1d-1.7.0.tar.gz",
    "3202758494eaa7b597ce1c282dfa188889506bfcb92cad3c407d26736bfcd32b",
)
FLASHINFER = Source(
    "flashinfer-python 0.7.2.post1",
    _FILES
    + "b6/ad/da1fc7644b28ab82db922021955a0c85c8d6b3b1d6db224a13ef65cef85e/"
    + "flashinfer_python-0.7.2.post1-py3-none-any.whl",
    "bfdc18b9e1e4d8d0730fe4343dc0e284cd0c160086de80f99888bc4867922d49",
)
#: Of mamba-ssm: what the scan, the step and the norm import, and the licence.
_TRITON = (
    *("ssd_combined", "ssd_bmm", "ssd_chunk_scan", "ssd_chunk_state", "ssd_state_passing"),
    *("selective_state_update", "softplus", "layernorm_gated", "k_activations"),
)
_UTILS = ("torch", "determinism")
_NVCC = ("nvcc", "-O3", "-shared", "-Xcompiler", "-fPIC,-fvisibility=hidden", "-cudart", "static", "-w")
_FLASHINFER = (
    *("-std=c++20", "--expt-relaxed-constexpr", "-DFLASHINFER_ENABLE_BF16", "-DFLASHINFER_ENABLE_F16"),
    *("-DFLASHINFER_ENABLE_FP8_E4M3", "-DFLASHINFER_ENABLE_FP8_E5M2"),
)


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--architecture", default="90", help="compute capability of the card, without its dot")
    options = parser.parse_args()
    try:
        prepare(options.folder, options.architecture)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or b""
        print(f"prepare_peers: {error}\n{said.decode(errors='replace')[-2000:]}", file=sys.stderr)
        return 1
    return 0


def prepare(folder: Path, architecture: str) -> None:
    """Fills the folder; raises OSError, ValueError (another digest) or CalledProcessError (nvcc)."""
    folder.mkdir(parents=True, exist_ok=True)
    versions = [source.name for source in (MAMBA_SSM, CAUSAL_CONV1D, FLASHINFER)]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        lay_out(MAMBA_SSM, fetch(MAMBA_SSM), folder)
        with tarfile.open(fileobj=io.BytesIO(fetch(CAUSAL_CONV1D))) as archive:
            archive.extractall(place, filter="data")
        with zipfile.ZipFile(io.BytesIO(fetch(FLASHINFER))) as wheel:
            wheel.extractall(place, [n for n in wheel.namelist() if n.startswith(_INCLUDED)])
        with ThreadPoolExecutor(2) as pool:
            list(
                pool.map(
                    lambda command: subprocess.run(command, check=True, capture_output=True),
                    compilers(place, folder, architecture),
                )
            )
    (folder / "versions.txt").write_text("\n".join(versions) + "\n")
    print(f"{folder}: {', '.join(versions)}")


_INCLUDED = ("flashinfer/data/include/", "flashinfer/data/cccl/")


def fetch(source: Source) -> bytes:
    """The distribution; raises ValueError where its digest is not the pinned one."""
    with urllib.request.urlopen(source.url, timeout=300) as answer:
        data: bytes = answer.read()
    found = hashlib.sha256(data).hexdigest()
    if found != source.sha256:
        raise ValueError(f"{source.url}: expected SHA-256 {source.sha256}, found {found}")
    return data


def lay_out(source: Source, data: bytes, folder: Path) -> None:
    """The Triton files, where mixer_peers.py imports them from."""
    wanted = {f"mamba_ssm/ops/triton/{name}.py" for name in _TRITON} | {f"mamba_ssm/utils/{name}.py" for name in _UTILS}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive.getmembers():
            name = member.name.partition("/")[2]
            file = archive.extractfile(member) if name in wanted else None
            if file is not None:
                wanted.remove(name)
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read())
    if wanted:
        raise ValueError(f"{source.name}: expected {', '.join(sorted(wanted))}, found none of these")


def compilers(place: Path, folder: Path, architecture: str) -> Iterable[list[str]]:
    """nvcc's commands. From compute capability 9.0 on FlashInfer wants the features of one architecture, `a`."""
    own = f"{architecture}a" if int(architecture) >= 90 else architecture
    data = place / "flashinfer" / "data"
    parts = [data / "include", *(data / "cccl" / name for name in ("libcudacxx/include", "cub", "thrust"))]
    includes = [word for part in parts for word in ("-isystem", str(part))]
    tma = ["-DFLASHINFER_MAMBA_ENABLE_SM90"] if int(architecture) >= 90 else []
    for name in ("flashinfer_ssu", "flashinfer_attention"):
        yield _compiler(own, [*_FLASHINFER, *tma, *includes], folder, name)
    (sources,) = place.glob("causal_conv1d-*/csrc")
    conv = ["-std=c++17", "--expt-relaxed-constexpr", "--expt-extended-lambda", "-I", str(HERE / "peers")]
    yield _compiler(architecture, [*conv, "-isystem", str(sources)], folder, "causal_conv1d")


def _compiler(architecture: str, options: list[str], folder: Path, name: str) -> list[str]:
    code = ["-gencode", f"arch=compute_{architecture},code=sm_{architecture}"]
    return [*_NVCC, *code, *options, "-o", str(folder / f"libpeer_{name}.so"), str(HERE / "peers" / f"{name}.cu")]


if __name__ == "__main__":
    sys.exit(main())
