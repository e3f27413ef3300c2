"""Where a sweep runs: a small Dask cluster on this machine, or one whose scheduler has an
address."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from dlnlib.errors import BadCluster, shortened
from dlnlib.sweeps.worker import about

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["connected", "slots"]

WAIT = 30  # seconds for a scheduler to answer, and for a first worker
QUIET = logging.CRITICAL + 1
LOGGERS = (
    "asyncio",
    "distributed",
    "distributed.client",
    "distributed.core",
    "distributed.nanny",
    "distributed.scheduler",
    "tornado",
    "tornado.application",
)


@contextmanager
def connected(scheduler: str | None, workers: int, security=None) -> Iterator[Client]:
    """A client of the cluster; a local one ends with it.

    Raises BadCluster when the scheduler does not answer, has no worker, or a worker has not this
    library.
    """
    import dask
    import distributed  # noqa: F401  which sets the levels of its loggers

    settings = {
        "distributed.logging.distributed": "critical",
        "distributed.comm.timeouts.connect": f"{WAIT}s",
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
        "distributed.nanny.environ.OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    with dask.config.set(settings), _quiet():
        make = _local(workers) if scheduler is None else _remote(scheduler, security)
        with make as client:
            _same_library(client)
            yield client


@contextmanager
def _quiet() -> Iterator[None]:
    """What Dask logs while it lasts is left out: what concerns a user is raised."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(QUIET)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _local(workers: int) -> Iterator[Client]:
    """Worker processes of this machine, on the loopback interface, behind keys that only this
    process holds: other users of the machine can connect to its ports as well."""
    from distributed import Client, LocalCluster
    from distributed.security import Security

    try:
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            worker_dashboard_address=None,
            memory_limit=0,
            silence_logs=QUIET,
            security=Security.temporary(),
        )
    except (OSError, RuntimeError) as err:
        raise BadCluster(f"no local cluster could be started: {err}") from err
    client = Client(cluster)
    try:
        yield client
    finally:
        with suppress(Exception):
            client.close(timeout=2)
            cluster.close(timeout=5)


@contextmanager
def _remote(scheduler: str, security) -> Iterator[Client]:
    from distributed import Client

    shown = shortened(scheduler, 100)
    try:
        client = Client(scheduler, timeout=WAIT, security=security)
    except (OSError, TimeoutError, ValueError, ImportError, TypeError) as err:
        raise BadCluster(
            f"scheduler {shown}: does not answer ({_first(err)}); give an address such as "
            "tcp://host:8786 at which `dask scheduler` listens"
        ) from err
    try:
        try:
            client.wait_for_workers(1, timeout=WAIT)
        except TimeoutError as err:
            raise BadCluster(
                f"scheduler {shown}: no worker within {WAIT} s; start some with `dask worker "
                f"{shown}`"
            ) from err
        yield client
    finally:
        with suppress(Exception):
            client.close(timeout=5)


def _first(err: BaseException) -> str:
    return shortened(" ".join(str(err).split()) or type(err).__name__, 120)


def _same_library(client: Client) -> None:
    """Raises BadCluster, naming the scheduler or the first worker that has another library, or
    none."""
    own = about()
    try:
        found = client.run(about, on_error="return")
        found = {f"worker {name}": found[name] for name in sorted(found)}
        found = {"the scheduler": _of_the_scheduler(client), **found}
    except OSError as err:  # it went away in between
        raise BadCluster(f"the workers cannot be asked for their library: {_first(err)}") from err
    for who, said in found.items():
        if isinstance(said, BaseException):
            raise BadCluster(
                f"{who}: dlnlib cannot be loaded there ({_first(said)}); install dlnlib "
                f"{own['version']} there"
            )
        if said != own:
            raise BadCluster(
                f"{who}: has dlnlib {said['version']} ({said['library']}), this is "
                f"{own['version']} ({own['library']}); install the same there"
            )


def _of_the_scheduler(client: Client) -> object:
    """What `about` says there; the error where it cannot be loaded (tasks are read there too)."""
    try:
        return client.run_on_scheduler(about)
    except Exception as err:
        return err


def slots(client: Client) -> int:
    """How many runs the cluster makes at once."""
    return max(1, sum(client.nthreads().values()))
