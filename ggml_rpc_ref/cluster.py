"""A Dask cluster, for campaigns and fleets over many machines: the only place where Dask is imported (extra `dask`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ggml_rpc_ref.errors import Misuse


@contextmanager
def cluster(address: str, workers: int = 2) -> Iterator[Any]:
    """Yield the client of a cluster, a `dask.distributed.Client`.

    Args:
        address: of a scheduler, "tcp://HOST:PORT"; "local": a cluster of `workers` processes on this machine.
        workers: processes of a local cluster.

    Raises:
        Misuse: where Dask is not installed, or there is no such cluster.
    """
    try:
        import dask
        from dask.distributed import Client, LocalCluster
    except ImportError:
        raise Misuse("a cluster needs Dask: pip install 'ggml-rpc-ref[dask]'") from None
    # daemonic workers may not start processes of their own, and a worker starts the server that it looks at
    dask.config.set({"distributed.worker.daemon": False})
    try:
        if address == "local":
            with (
                LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as local,
                Client(local) as client,
            ):
                yield client
        else:
            with Client(address, timeout="10s") as client:
                yield client
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a worker of a local cluster did not start
        raise Misuse(f"there is no Dask cluster at {address}: {error}") from None
