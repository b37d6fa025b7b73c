"""imgstore_zarr on dask: graphs over a week, and reductions by the processes of a cluster."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import dask
import distributed
import numpy as np

import imgstore_zarr

_clients: dict[int, Any] = {}


def versions() -> dict[str, str]:
    return {"dask": dask.__version__, "distributed": distributed.__version__}


def graph(path: str) -> float:
    """Build the DataArray of a recording that is open."""
    with imgstore_zarr.open(path) as store:
        begin = time.perf_counter()
        array = store.to_xarray(chunks="auto")
        took = time.perf_counter() - begin
        blocks = array.data.npartitions
        if blocks > 20_000:
            raise RuntimeError(f"{blocks} blocks")
        return took


def minute(path: str, start: float) -> float:
    """Mean image of one minute, selected by time."""
    with imgstore_zarr.open(path) as store:
        array = store.to_xarray(chunks="auto", index="frame_time")
        begin = time.perf_counter()
        array.sel(frame_time=slice(start, start + 60)).mean("frame").compute(scheduler="threads")
        return time.perf_counter() - begin


def _client(workers: int) -> Any:
    """A cluster of processes with one thread each, which stays for the next round."""
    if workers not in _clients:
        with dask.config.set({"temporary-directory": tempfile.mkdtemp()}):
            cluster = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=":0"
            )
        _clients[workers] = distributed.Client(cluster, set_as_default=False)
        _clients[workers].wait_for_workers(workers)
    return _clients[workers]


def reduce(path: str, workers: int, blocks: int, frames: int) -> float:
    """Mean of each frame of blocks that are spread over the recording; seconds for one frame."""
    client = _client(workers)
    with imgstore_zarr.open(path) as store:
        array = store.to_xarray(chunks=frames)
        lengths = np.array(array.chunks[0])
        bounds = np.append(0, np.cumsum(lengths))
        chosen = np.linspace(0, len(lengths) - 2, blocks).astype(int)
        parts = [array[bounds[i] : bounds[i + 1]].mean(("y", "x")) for i in chosen.tolist()]
        count = int(lengths[chosen].sum())
        begin = time.perf_counter()
        dask.compute(*parts, scheduler=client)
        return (time.perf_counter() - begin) / count


def worker_memory(path: str, blocks: int, frames: int) -> float:
    """How much the memory of a worker grows by reading a good part of a recording, in bytes."""
    client = _client(2)
    before = client.run(_resident)
    for _ in range(3):
        reduce(path, 2, blocks, frames)
    after = client.run(_resident)
    return float(max(after[name] - before[name] for name in after))


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def end() -> float:
    """Stop the clusters."""
    for client in _clients.values():
        cluster = client.cluster
        client.close()
        cluster.close()
    _clients.clear()
    return 0.0
