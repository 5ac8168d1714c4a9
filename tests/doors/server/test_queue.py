"""Laws of the queue, of the jobs that are held, and of what one client may ask."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from groundglass.doors.server.clients import Clients
from groundglass.doors.server.jobs import Jobs
from groundglass.doors.server.outcome import Outcome
from groundglass.doors.server.pool import Full, Pool
from groundglass.doors.server.problem import Problem
from groundglass.doors.server.settings import Bounds, Settings, is_loopback, read_token
from groundglass.doors.server.view import View
from groundglass.doors.server.watch import Stopped, Watch
from groundglass.errors import ConfigError
from groundglass.infer.predict import Seen
from groundglass.infer.views import Place
from groundglass.read.limits import Limits
from groundglass.types import Prediction, Window


@pytest.fixture
def pool() -> object:
    made = Pool(2, 3, Limits())
    made.start()
    yield made
    made.close()


def test_a_place_that_is_taken_is_free_again_when_given_back(pool: Pool) -> None:
    for _ in range(3):
        pool.reserve()
    with pytest.raises(Full):
        pool.reserve()
    pool.release()
    pool.reserve()


def test_at_most_one_study_runs_and_slices_pass_it(pool: Pool) -> None:
    go = threading.Event()
    running: list[int] = []

    def study(_: object) -> int:
        running.append(1)
        go.wait()
        most = len(running)
        running.pop()
        return most

    studies: list[Future[int]] = [pool.submit(study, Watch(), study=True) for _ in range(3)]
    assert pool.submit(lambda _: "slice", Watch(), study=False).result() == "slice"
    go.set()
    assert [s.result() for s in studies] == [1, 1, 1]


def test_stopped_work_never_starts_and_a_fault_costs_no_worker(pool: Pool) -> None:
    watch = Watch()
    watch.stop()
    with pytest.raises(Stopped):
        pool.submit(lambda _: "never", watch, study=False).result()
    for _ in range(4):
        with pytest.raises(ZeroDivisionError):
            pool.submit(lambda _: 1 // 0, Watch(), study=False).result()
    assert pool.submit(lambda _: "alive", Watch(), study=True).result() == "alive"


def test_a_closed_pool_takes_nothing(pool: Pool) -> None:
    pool.close()
    with pytest.raises(Full):
        pool.reserve()


def _outcome(size: int) -> Outcome:
    result = Prediction("a", "m", "0" * 64, 0.5, "covid", 0.4, (0,), (0.5,), 0.3, 1.0)
    one = np.full((1, 1), 0.5)
    seen = Seen(one, np.zeros((1, 1, 2, 1, 1), np.float32), one * 2, ((Place((0, 0, 1, 1)),),))
    return Outcome(result, View(result, (1, 1, 1), "HU", None, Window(0, 1), 0.0, (bytes(size),), (b"",), seen))


def test_ended_jobs_go_when_old_when_many_and_when_large() -> None:
    jobs = Jobs(Bounds(jobs=3, jobs_bytes=100, job_seconds=1000))
    running = jobs.add(Watch())
    ended = [jobs.add(Watch()) for _ in range(3)]
    for number, job in enumerate(ended):
        job.end("done")
        job.touched -= 10 - number
    jobs.sweep()
    assert len(jobs) == 3
    with pytest.raises(Problem):
        jobs.get(ended[0].id)
    ended[1].outcomes.append(_outcome(80))
    ended[2].outcomes.append(_outcome(80))
    jobs.sweep()
    assert len(jobs) == 2
    ended[2].touched = time.monotonic() - 2000
    jobs.sweep()
    assert len(jobs) == 1
    assert jobs.get(running.id) is running


def test_the_job_touched_last_stays_however_large_it_is() -> None:
    jobs = Jobs(Bounds(jobs=3, jobs_bytes=100, job_seconds=1000))
    small, large = jobs.add(Watch()), jobs.add(Watch())
    large.outcomes.append(_outcome(500))
    small.end("done")
    large.end("done")
    large.touched += 1
    jobs.sweep()
    assert jobs.get(large.id) is large
    with pytest.raises(Problem):
        jobs.get(small.id)
    large.touched -= 2000
    jobs.sweep()
    assert len(jobs) == 0


def test_one_client_has_a_burst_then_a_rate_and_others_are_not_concerned() -> None:
    now = [0.0]
    clients = Clients(Bounds(client_burst=3, client_per_minute=60, client_requests=2), lambda: now[0])

    def ask(address: str) -> int:
        try:
            clients.enter(address)
        except Problem as problem:
            return problem.status if int(problem.headers["Retry-After"]) > 0 else 0
        clients.leave(address)
        return 200

    assert [ask("a") for _ in range(4)] == [200, 200, 200, 429]
    assert ask("b") == 200
    now[0] += 1
    assert [ask("a"), ask("a")] == [200, 429]
    now[0] += 60
    clients.enter("c")
    clients.enter("c")
    with pytest.raises(Problem):
        clients.enter("c")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_is_what_only_this_machine_reaches(host: str) -> None:
    assert is_loopback(host)
    assert Settings(host=host).token is None
    with pytest.raises(ConfigError, match="token"):
        Settings(host=host, behind_proxy=True)
    assert Settings(host=host, behind_proxy=True, token="t" * 40).names


def test_a_credential_of_systemd_may_be_readable_for_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 40)
    token.chmod(0o440)
    with pytest.raises(ConfigError, match="0600"):
        read_token(token)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_token(token) == "t" * 40
    for mode in (0o444, 0o460):
        token.chmod(mode)
        with pytest.raises(ConfigError, match="0600"):
            read_token(token)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "ct.example", ""])
def test_all_else_needs_a_token_and_tls(host: str) -> None:
    with pytest.raises(ConfigError, match="token"):
        Settings(host=host)
    with pytest.raises(ConfigError, match="TLS"):
        Settings(host=host, token="t" * 40)
    assert Settings(host=host, token="t" * 40, behind_proxy=True).names
