"""Stage `device`: every call to the driver that the runtime makes, its results compared byte by byte."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import numpy.typing as npt

from elastic_runtime.bringup.place import Place
from elastic_runtime.bringup.results import Found
from elastic_runtime.bringup.stages.measuring import timed
from elastic_runtime.driver.blocks import Block
from elastic_runtime.driver.cuda import CudaDevice
from elastic_runtime.errors import BuildError
from elastic_runtime.format.slicing import reader_of

_SIZE = 64 << 20
_ROWS = Block(64, 0, 1000, 4096, 4096, 2000)  # 1000 bytes of each of 4096 rows of 4096, put 2000 apart
_TOO_MUCH = 1 << 50  # bytes, which no card has


def run(place: Place) -> Found:  # as every stage
    """Copies there and back, whole and in rows, a recorded step, and what is said of memory that there is not."""
    source = np.random.default_rng(1).integers(0, 256, _SIZE, dtype=np.uint8)
    with closing(CudaDevice()) as opened:
        address = opened.allocate(_SIZE)
        try:
            return {
                **_flat(opened, address, source),
                **_rows(opened, address, source),
                "graph_ran": _graph(opened, address),
                "refused": _refused(opened),
            }
        finally:
            opened.free(address)


def _flat(opened: CudaDevice, address: int, source: npt.NDArray[np.uint8]) -> Found:
    """Bytes a second through page-locked memory, as weights go and logits come, and from memory that is not."""

    def plain() -> None:
        opened.upload(address, source)
        opened.synchronize()

    pinning, up = _staged(opened, address, source, Block(0, 0, _SIZE, 1, _SIZE, _SIZE))
    back = np.zeros(_SIZE, np.uint8)
    opened.download(address, back)
    equal = bool(np.array_equal(source, back))
    pageable = timed(plain)
    landing = opened.host_buffer(_SIZE)
    try:
        down = timed(lambda: opened.download(address, landing))
        equal = equal and bool(np.array_equal(source, landing))
    finally:
        opened.free_host_buffer(landing)
    rates = {"upload": up, "pageable_upload": pageable, "download": down}
    speeds = {f"{name}_bytes_per_second": _SIZE / seconds for name, seconds in rates.items()}
    return {"copies_equal": equal, "first_upload_seconds": pinning, **speeds}


def _staged(opened: CudaDevice, address: int, source: npt.NDArray[np.uint8], block: Block) -> tuple[float, float]:
    """Seconds of a first upload through page-locked buffers and of a second one. The first makes the buffers, once for
    all weights, which takes the driver longer than to fill and copy them (an H100: 85 ms for both of 64 MiB).
    """

    def upload() -> None:
        opened.upload_blocks(address, reader_of(source), [block])
        opened.synchronize()

    try:
        return timed(upload), timed(upload)
    finally:
        opened.finish_uploads()


def _rows(opened: CudaDevice, address: int, source: npt.NDArray[np.uint8]) -> Found:
    """Rows cut out of wider ones, as a budget's weights are of the parent's."""
    opened.zero(address, _SIZE)
    _, seconds = _staged(opened, address, source, _ROWS)
    there = np.zeros(_ROWS.height * _ROWS.target_pitch, np.uint8)
    opened.download(address, there)
    end = _ROWS.source + _ROWS.width
    wanted = source[: _ROWS.height * _ROWS.source_pitch].reshape(_ROWS.height, -1)[:, _ROWS.source : end]
    return {
        "rows_equal": bool(np.array_equal(there.reshape(_ROWS.height, -1)[:, : _ROWS.width], wanted)),
        "strided_bytes_per_second": _ROWS.width * _ROWS.height / seconds,
    }


def _graph(opened: CudaDevice, address: int) -> bool:
    """Whether a recorded step does what it recorded."""
    graph = opened.capture(lambda: opened.zero(address, 4096))
    opened.launch(graph)
    zeroed = np.ones(4096, np.uint8)
    opened.download(address, zeroed)
    opened.drop(graph)
    return not zeroed.any()


def _refused(opened: CudaDevice) -> str:
    """What the driver says where there is not enough memory; empty where it gave it."""
    try:
        opened.free(opened.allocate(_TOO_MUCH))
    except BuildError as error:
        return str(error)
    return ""
