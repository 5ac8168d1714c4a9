"""Long work: each job has an unguessable id and is held in memory for a while, never on disk."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

from groundglass.doors.server.outcome import Outcome
from groundglass.doors.server.problem import Problem
from groundglass.doors.server.settings import Bounds
from groundglass.doors.server.watch import Watch

State = Literal["queued", "running", "done", "failed", "stopped"]


@dataclass(slots=True)
class Job:
    """One accepted request: how far it is, and the outcomes so far."""

    id: str
    watch: Watch
    state: State = "queued"
    outcomes: list[Outcome] = field(default_factory=list)
    code: str | None = None
    detail: str = ""
    touched: float = field(default_factory=time.monotonic)

    @property
    def ended(self) -> bool:
        return self.state not in ("queued", "running")

    @property
    def size(self) -> int:
        """Bytes of pictures and objects that are held."""
        return sum(outcome.size for outcome in self.outcomes)

    def progress(self) -> dict[str, Any]:
        """How far it is, for JSON."""
        return {
            "id": self.id,
            "state": self.state,
            "stage": self.watch.stage,
            "done": self.watch.done,
            "total": self.watch.total,
            "scans": len(self.outcomes),
            "code": self.code,
            "detail": self.detail,
        }

    def end(self, state: State, code: str | None = None, detail: str = "") -> None:
        self.state, self.code, self.detail = state, code, detail
        self.touched = time.monotonic()


class Jobs:
    """The jobs of one service. An ended job is removed after a while, or if newer ones need its place.

    The job that was used last is not removed earlier, however large it is, because its user may still look at it.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._jobs: dict[str, Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, watch: Watch) -> Job:
        """A new job. If there are too many, older ended ones are removed."""
        self.sweep()
        job = Job(secrets.token_urlsafe(16), watch)
        self._jobs[job.id] = job
        return job

    def get(self, id: str) -> Job:
        """The job with this id. Raises Problem (404) if there is none any more."""
        job = self._jobs.get(id)
        if job is None:
            raise Problem(404, "no_job", "the id of a job that is still held", "another", "send the files again")
        job.touched = time.monotonic()
        return job

    def drop(self, job: Job) -> None:
        """Stop a job and forget it."""
        job.watch.stop()
        if not job.ended:
            job.end("stopped")
        self._jobs.pop(job.id, None)

    def sweep(self) -> None:
        """Remove ended jobs that are old, too many, or hold too many bytes; those longest unused first."""
        now = time.monotonic()
        ended = sorted((job for job in self._jobs.values() if job.ended), key=lambda job: job.touched)
        held, count = sum(job.size for job in ended), len(self._jobs)
        for job in ended:
            old = now - job.touched > self._bounds.job_seconds
            room = count <= self._bounds.jobs and held <= self._bounds.jobs_bytes
            if not old and (room or job is ended[-1]):
                break
            held, count = held - job.size, count - 1
            self._jobs.pop(job.id, None)

    def close(self) -> None:
        for job in list(self._jobs.values()):
            self.drop(job)


async def follow(job: Job) -> AsyncIterator[dict[str, Any]]:
    """The progress of a job whenever it has changed, at most ten times a second, until it has ended."""
    last: dict[str, Any] | None = None
    while True:
        ended, progress = job.ended, job.progress()  # in this order, or the last change could be missed
        if progress != last:
            yield progress
        if ended:
            return
        last = progress
        await asyncio.sleep(0.1)
