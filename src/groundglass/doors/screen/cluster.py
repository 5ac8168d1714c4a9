"""Attendants on the workers of dask.distributed: a scheduler that runs somewhere, or jobs that SLURM starts.

Paths and hashes travel, never pixels. Each dask worker keeps one attendant a thread; the items themselves run in the
attendants' children, as they do on one machine, so a bad item cannot take a dask worker down. Execution is at least
once: a worker that is lost has its items done again elsewhere, and the ledger takes one row for each.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from typing import Any

import dask
from distributed import Client, WorkerPlugin, get_worker

from groundglass.doors.screen.attendant import Attendants, Unprepared
from groundglass.doors.screen.work import Settings
from groundglass.errors import RemoteError

_SECONDS_TO_CONNECT = 30
# How often the workers are counted.
_SECONDS_BETWEEN = 2.0
# A scheduler gives a task up after this many workers died with it. An item cannot kill a worker, so it may try again.
_UNLUCKY = 10


class Answering(WorkerPlugin):  # type: ignore[misc]
    """The attendants of one dask worker, for one run."""

    def __init__(self, name: str, settings: Settings, command: Sequence[str] | None) -> None:
        self.name = name
        self._settings, self._command = settings, command
        self._attendants: Attendants | None = None

    def setup(self, worker: Any) -> None:
        """Called by dask on every worker, also on those that come later."""
        self._attendants = Attendants(self._settings, worker.state.nthreads, self._command)

    def teardown(self, worker: Any) -> None:
        """Called by dask when the run is over or the worker leaves."""
        if self._attendants is not None:
            self._attendants.close()

    def answer(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """The answer for an item, from a free attendant."""
        assert self._attendants is not None
        return self._attendants.answer(task)


def _on_worker(name: str, task: Mapping[str, Any]) -> dict[str, Any]:
    plugin = get_worker().plugins.get(name)
    if not isinstance(plugin, Answering):
        raise Unprepared(name)
    return plugin.answer(task)


class Cluster:
    """Workers behind a scheduler. `submit` is that of an executor; `slots` counts the items they can do at a time."""

    def __init__(self, client: Any, settings: Settings, command: Sequence[str] | None) -> None:
        self._client = client
        self._name = f"groundglass-{uuid.uuid4().hex[:12]}"
        self._executor: Executor = client.get_executor(pure=False, retries=0)
        self._slots, self._asked = 1, -_SECONDS_BETWEEN
        client.register_plugin(Answering(self._name, settings, command), name=self._name)

    @property
    def slots(self) -> int:
        """Items that run at a time now, at least one; workers may come and go. Raises RemoteError (`scheduler`)."""
        if time.monotonic() - self._asked > _SECONDS_BETWEEN:
            with _as_scheduler_error():
                self._slots = max(1, int(sum(self._client.nthreads().values())))
            self._asked = time.monotonic()
        return self._slots

    def submit(self, task: Mapping[str, Any]) -> Any:
        """The future answer for an item. Raises RemoteError (`scheduler`)."""
        with _as_scheduler_error():
            return self._executor.submit(_on_worker, self._name, task)

    def close(self) -> None:
        """Remove the attendants from the workers and abandon the items that are being answered."""
        with suppress(ValueError):  # a scheduler that was restarted does not know them
            self._client.unregister_worker_plugin(self._name)


@contextmanager
def connected(
    scheduler: str, workers: int, settings: Settings, command: Sequence[str] | None = None
) -> Iterator[Cluster]:
    """The cluster behind `scheduler`: `slurm`, or an address such as `tcp://head:8786` or `tls://head:8786`.

    With `slurm`, dask-jobqueue starts `workers` jobs as its own settings file says (`~/.config/dask/jobqueue.yaml`).
    Raises RemoteError if no scheduler answers.
    """
    quiet = {"distributed.scheduler.allowed-failures": _UNLUCKY, "distributed.worker.daemon": False}
    with dask.config.set(quiet):
        if scheduler == "slurm":
            with _jobs(workers) as jobs, _client(jobs) as client:
                yield from _cluster(client, settings, command)
        else:
            with _client(scheduler) as client:
                yield from _cluster(client, settings, command)


def _cluster(client: Any, settings: Settings, command: Sequence[str] | None) -> Iterator[Cluster]:
    cluster = Cluster(client, settings, command)
    try:
        yield cluster
    finally:
        if client.status == "running":
            cluster.close()


def _jobs(workers: int) -> Any:
    import dask_jobqueue

    jobs: Any = dask_jobqueue.SLURMCluster()  # type: ignore[attr-defined]
    jobs.scale(jobs=workers)
    return jobs


def _client(to: Any) -> Any:
    client: Any = Client
    with _as_scheduler_error():
        return client(to, timeout=_SECONDS_TO_CONNECT, set_as_default=False)


@contextmanager
def _as_scheduler_error() -> Iterator[None]:
    """Every error of dask for a scheduler that is not there, as RemoteError."""
    try:
        yield
    except (OSError, TimeoutError, ValueError) as error:  # dask's CommClosedError is an OSError
        kind = type(error).__name__
        raise RemoteError("scheduler", "a dask scheduler that answers", kind, "start it and run again") from error
