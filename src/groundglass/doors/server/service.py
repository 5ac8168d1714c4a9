"""One running service: its model, its queue, its jobs and its temporary folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from starlette.requests import Request

from groundglass.doors.server import outcome
from groundglass.doors.server.guard import exchange_of
from groundglass.doors.server.jobs import Job, Jobs
from groundglass.doors.server.metrics import Metrics
from groundglass.doors.server.outcome import Judge, Outcome
from groundglass.doors.server.pool import Full, Pool
from groundglass.doors.server.problem import Problem
from groundglass.doors.server.settings import Settings
from groundglass.doors.server.upload import Admit, Spool, Upload
from groundglass.doors.server.upload import receive as receive_upload
from groundglass.doors.server.view import picture
from groundglass.doors.server.watch import Stopped, Watch, WatchedDecoder
from groundglass.errors import GroundglassError
from groundglass.infer.model import Model, load
from groundglass.read.limits import MIB
from groundglass.report.schema import to_json, to_row
from groundglass.write import write_bytes

T = TypeVar("T")
_SWEEP_SECONDS = 10.0


class Service:
    """Everything that the routes share. `failed` is what kept the model from loading, or None."""

    def __init__(self, settings: Settings, log: logging.Logger, stop: Callable[[], None] = lambda: None) -> None:
        self.settings, self.log = settings, log
        self.failed: Exception | None = None
        self.pool = Pool(settings.workers, settings.bounds.queue, settings.limits)
        self.jobs = Jobs(settings.bounds)
        self.metrics = Metrics(lambda: self.pool.depth)
        self.spool = Spool()
        self.judge: Judge | None = None
        self._stop = stop
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The service works inside this block. It is live at once, and ready when the model has passed its test."""
        self.pool.start()
        self._begin(self._load())
        self._begin(self._sweep())
        try:
            yield
        finally:
            self.jobs.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.to_thread(self.pool.close)
            self.spool.close()

    @property
    def model(self) -> Model:
        """The loaded model. Raises Problem (503) until it is there."""
        return self.judge_at(None).model

    @property
    def model_text(self) -> str:
        """Name and hash of the loaded model for headers and log."""
        if self.judge is None:
            return "none"
        return f"{self.judge.model.name}; sha256={self.judge.model.sha256}"

    def judge_at(self, threshold: float | None) -> Judge:
        """The judge at `threshold`, by default that of the operating point. Raises Problem (503) until it is there."""
        if self.judge is None:
            raise Problem(503, "not_ready", "a loaded model", "none yet", "try again", headers={"Retry-After": "2"})
        return self.judge if threshold is None else Judge(self.judge.model, threshold)

    async def _load(self) -> None:
        try:
            self.judge = await asyncio.to_thread(self._loaded)
        except Exception as error:  # after any error the service reports it and ends
            self.failed = error
            code = error.code if isinstance(error, GroundglassError) else "internal"
            self.log.error(json.dumps({"event": "model", "code": code, "fault": type(error).__name__}))
            self._stop()
            return
        self.metrics.model(self.judge.model.card.version, self.judge.model.sha256)
        self.log.info(json.dumps({"event": "ready", "model": self.model_text}))

    def _loaded(self) -> Judge:
        # one thread a network: the workers share the cores
        return Judge(load(self.settings.model, threads=1, operating_point=self.settings.operating_point))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.jobs.sweep()

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- one request -----------------------------------------------------------------------------------------------

    def reserve(self) -> None:
        """Take a place in the queue. Raises Problem (503) if there is none."""
        try:
            self.pool.reserve()
        except Full:
            raise self._busy() from None

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue until the end of the block. It is taken after the files, which may be slow."""
        self.reserve()
        try:
            yield
        finally:
            self.pool.release()

    @asynccontextmanager
    async def folder(self) -> AsyncIterator[Path]:
        """Where the files of a request will lie, which `receive` makes; taken away at the end."""
        folder = self.spool.name()
        try:
            yield folder
        finally:
            if folder.exists():
                await asyncio.to_thread(self.spool.remove, folder)

    def refuse_if_full(self) -> None:
        """Raises Problem (503) if the queue is full now; only `reserve` and `place` say for sure."""
        if self.pool.full:
            raise self._busy()

    def _busy(self) -> Problem:
        room = f"room in a queue of {self.settings.bounds.queue}"
        return Problem(503, "busy", room, "a full one", "try again", headers={"Retry-After": "2"})

    async def receive(
        self,
        request: Request,
        folder: Path,
        *,
        files: int,
        file_bytes: int,
        fields: tuple[str, ...] = (),
        admit: Admit = lambda _: None,
    ) -> Upload:
        """The files of a request, at most `files` of `file_bytes` each, and no more together than a study may have."""
        limits = self.settings.limits

        def admitted(texts: Mapping[str, str]) -> None:
            admit(texts)
            self.refuse_if_full()  # the queue may have filled since the head came, and nothing is written yet
            self.spool.make(folder)

        exchange_of(request.scope).limit((file_bytes if files == 1 else limits.study_bytes) + MIB)
        return await receive_upload(
            request.stream(),
            request.headers.get("content-type", ""),
            folder,
            most_files=files,
            file_bytes=file_bytes,
            fields=fields,
            admit=admitted,
        )

    async def run(self, request: Request, work: Callable[[WatchedDecoder], T], watch: Watch, *, study: bool) -> T:
        """Run `work` in a worker, and stop it if the client leaves. Raises what `work` raises."""
        future = asyncio.wrap_future(self.pool.submit(work, watch, study=study))
        gone = asyncio.ensure_future(_gone(request))
        try:
            waited: list[asyncio.Future[Any]] = [future, gone]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                watch.stop()
                await asyncio.wait({future})
            return future.result()
        except Stopped:
            raise Problem(408, "client_gone", "a client that waits for the answer", "one that left") from None
        finally:
            gone.cancel()

    def note(self, outcome: Outcome, name: str) -> None:
        """Count an outcome and keep it if the settings say so; called in the worker's thread."""
        self.metrics.outcome(outcome)
        keep = self.settings.keep
        if keep is not None:
            write_bytes(keep / f"{name}.json", (to_json(to_row(outcome.result)) + "\n").encode("ascii"))
            if outcome.view is not None:
                write_bytes(keep / f"{name}.png", picture(outcome.view))

    # ---- jobs ------------------------------------------------------------------------------------------------------

    def start_job(self, upload: Upload, folder: Path, judge: Judge, *, as_scan: bool, view: bool) -> Job:
        """Work on the files in the background; the place and the folder are given back when that has ended."""
        job = self.jobs.add(Watch())
        self._begin(self._work_on(job, upload, folder, judge, as_scan, view))
        return job

    async def _work_on(self, job: Job, upload: Upload, folder: Path, judge: Judge, as_scan: bool, view: bool) -> None:
        def keep(outcome: Outcome) -> None:
            self.note(outcome, f"{job.id}-{len(job.outcomes) + 1}")
            job.outcomes.append(outcome if view else Outcome(outcome.result, None, outcome.seconds, outcome.kind))

        def work(decoder: WatchedDecoder) -> None:
            job.state = "running"
            look = view or self.settings.keep is not None
            judge.all(upload.files, decoder, job.watch, as_scan=as_scan, look=look, on_result=keep)

        future = asyncio.wrap_future(self.pool.submit(work, job.watch, study=True))
        try:
            await future
            job.end("done")
        except Stopped:
            job.end("stopped")
        except asyncio.CancelledError:
            job.watch.stop()
            job.end("stopped")
            raise
        except Exception as error:  # the job reports the error, and the service goes on
            row = outcome.failure(outcome.NAME, error)
            self.metrics.error(row.code)
            self.log.error(json.dumps({"event": "job", "code": row.code, "fault": type(error).__name__}))
            job.end("failed", row.code, row.detail)
        finally:
            self.spool.remove(folder)
            self.pool.release()


async def _gone(request: Request) -> None:
    with contextlib.suppress(Exception):
        while (await request.receive())["type"] != "http.disconnect":
            pass
