"""Connecting to or starting a Dask cluster for a conversion."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from catalog_builder.convert.workers import dask_worker
from catalog_builder.convert.workers.dask import ANSWER, DaskWorkers, counted
from catalog_builder.errors import ConvertError
from catalog_builder.extras import install_line

LOCAL = "local"
"""Address of a cluster that is started here."""


def connect(address: str) -> tuple[DaskWorkers, str]:
    """Return the workers of the cluster at a scheduler's address (or scheduler file), and a line on it.

    Raises
    ------
    ConvertError
        If Dask is not installed or no scheduler responds.
    ClusterError
        If no worker there can be used.
    """
    Client: Any = _distributed().Client  # noqa: N806 - it ships no types
    if address.endswith(".json") and not Path(address).is_file():
        raise ConvertError(f"{address}: no such scheduler file, so no Dask scheduler responds")
    where = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    client: Any = Client.__new__(Client)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            client.__init__(**where, timeout=ANSWER, set_as_default=False)
        except Exception as error:  # OSError, ValueError, TypeError (no certificates), ImportError …
            client.status = "closed"  # or half an object would try for 40 s to close itself
            reason = " ".join(str(error).split())
            raise ConvertError(f"{address}: no Dask scheduler responds ({reason})") from error
    try:
        workers = DaskWorkers(client)
    except BaseException:
        client.close(timeout=5)
        raise
    about = f"Dask cluster at {address}: {counted(workers.live)}; {_dashboard(client)}"
    if any("ersion" in w.category.__name__ for w in caught):
        about += (
            "; its versions of Dask or Python differ from the client's (`client.get_versions()` lists them)"
        )
    return workers, about


def start_local(count: int, memory: int) -> tuple[DaskWorkers, str]:
    """Start a cluster of processes on this machine, one thread each.

    Parameters
    ----------
    count
        Processes.
    memory
        Bytes at which a process is ended and its tile given up.

    Raises
    ------
    ConvertError
        If Dask is not installed.
    """
    distributed = _distributed()
    import dask

    folder = tempfile.TemporaryDirectory(prefix="tessera-dask-", ignore_cleanup_errors=True)
    with dask.config.set(_LOCAL_CONFIG), _no_noise():
        try:
            cluster = distributed.LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=memory,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                local_directory=folder.name,
                preload=[dask_worker.__name__],
                silence_logs=logging.CRITICAL,
            )
        except Exception as error:
            folder.cleanup()
            raise ConvertError(f"no local Dask cluster can be started: {error}") from error
        client = distributed.Client(cluster, timeout=ANSWER, set_as_default=False)

    def close() -> None:
        cluster.close(timeout=10)
        folder.cleanup()

    try:
        workers = DaskWorkers(client, close)
    except BaseException:
        client.close(timeout=5)
        close()
        raise
    return workers, _dashboard(client)


_LOCAL_CONFIG = {
    # One tile at a time on each process: nothing beside it is blamed for its death.
    "distributed.scheduler.worker-saturation": 1.0,
    # A tile that kills its process is tried twice, and twice again alone.
    "distributed.scheduler.allowed-failures": 1,
    # Tiles are not Dask's data: it can spill none of their memory, and pausing would only wait for ever.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}


def _dashboard(client: Any) -> str:
    """Return a line on where to watch the cluster."""
    link = client.dashboard_link  # made up where there is none
    if "dashboard" not in client.scheduler_info(n_workers=0)["services"]:
        return "its scheduler has no dashboard"
    if client.cluster is not None and find_spec("bokeh") is None:
        pages = link.removesuffix("/status") + "/info/main/workers.html"
        return f"dashboard: {pages} (its graphs at {link} need bokeh, which is not installed)"
    return f"dashboard: {link}"


def _distributed() -> Any:
    """Import Dask's cluster, and keep its log off the terminal."""
    try:
        import distributed
    except ImportError as error:
        raise ConvertError(f"--dask needs Dask: {install_line('dask')}") from error
    # The run's own lines say what matters; tornado's and distributed's are tracebacks of lost connections.
    for name in ("distributed", "distributed.client", "distributed.comm", "tornado", "asyncio", "bokeh"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith(("distributed.", "tornado.")) and isinstance(logger, logging.Logger):
            logger.setLevel(logging.CRITICAL + 1)
    return distributed


@contextlib.contextmanager
def _no_noise() -> Iterator[None]:
    """Keep warnings of Dask's start and end from the terminal."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"distributed|dask|tornado|asyncio")
        yield
