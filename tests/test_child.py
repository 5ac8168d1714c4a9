"""A child answers in time, or is gone with a reason."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from groundglass.child import JSON, Child, Closed, Gone

ECHO = """
from groundglass.child import own_pipes, read_frame, write_frame
requests, replies = own_pipes()
print("what a library prints goes nowhere")
while (message := read_frame(requests)) is not None:
    write_frame(replies, {"echo": message})
"""
Start = Callable[[str], Child]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Child] = []

    def run(code: str) -> Child:
        started.append(Child([sys.executable, "-c", code], os.environ))
        return started[-1]

    yield run
    for child in started:
        child.end()
        assert not child.running


def test_a_message_comes_back(start: Start) -> None:
    child, deadline = start(ECHO), time.monotonic() + 120
    for number in range(3):
        child.send({"n": number}, deadline)
        kind, length = child.frame(deadline)
        assert kind == JSON
        assert child.json(length, 1000, deadline) == {"echo": {"n": number}}


def test_a_silent_child_runs_out_of_time(start: Start) -> None:
    with pytest.raises(Gone) as caught:
        start("import time; time.sleep(600)").frame(time.monotonic() + 0.2)
    assert caught.value.code == "time_limit"


def _send_for_ever(child: Child) -> None:
    while True:
        child.send({}, time.monotonic() + 120)


def test_a_child_that_ends_is_a_crash(start: Start) -> None:
    child = start("pass")
    with pytest.raises(Gone) as caught:
        child.frame(time.monotonic() + 120)
    assert caught.value.code == "worker_crash"
    # its output may be closed a moment before its input is
    with pytest.raises(Closed):
        _send_for_ever(child)


@pytest.mark.parametrize("body", ["[1]", "{", "nul"])
def test_a_message_that_is_no_object_is_refused(body: str, start: Start) -> None:
    code = f"import os, struct; b = {body!r}.encode(); os.write(1, struct.pack('>cI', b'J', len(b)) + b)"
    child, deadline = start(code), time.monotonic() + 120
    _, length = child.frame(deadline)
    with pytest.raises(Gone, match="message is no"):
        child.json(length, 1000, deadline)


def test_a_message_over_the_limit_is_not_read(start: Start) -> None:
    with pytest.raises(Gone, match="too long"):
        start("pass").json(1001, 1000, time.monotonic() + 120)
