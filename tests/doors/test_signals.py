"""Laws of the signals: one stops in order, and what is being written is written whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from groundglass.doors.signals import Interrupted, Signals, signal_behind


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_an_exception_with_its_exit_status(number: int, status: int) -> None:
    with Signals(), pytest.raises(Interrupted) as caught:
        os.kill(os.getpid(), number)
    assert caught.value.exit_status == status


def test_a_signal_waits_for_the_end_of_what_is_written_whole() -> None:
    written: list[str] = []

    def write(signals: Signals) -> None:
        with signals.whole():
            os.kill(os.getpid(), signal.SIGTERM)
            written.append("row")

    with Signals() as signals, pytest.raises(Interrupted):
        write(signals)
    assert written == ["row"]


def test_a_signal_waits_for_the_end_of_the_outermost_block() -> None:
    written: list[str] = []

    def write(signals: Signals) -> None:
        with signals.whole():
            with signals.whole():
                os.kill(os.getpid(), signal.SIGTERM)
                written.append("picture")
            written.append("row")

    with Signals() as signals, pytest.raises(Interrupted):
        write(signals)
    assert written == ["picture", "row"]


def test_handlers_are_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_second_signal_ends_the_process_at_once() -> None:
    code = """
import os, signal
from groundglass.doors.signals import Signals
with Signals() as signals, signals.whole():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    print("never")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 143
    assert done.stdout == ""


def test_a_failure_that_follows_a_signal_is_that_signal() -> None:
    """A worker process of a training run gets the signal too, and its loss is noticed while the run stops."""

    def lose() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            raise RuntimeError("a worker is gone")

    with Signals(), pytest.raises(RuntimeError) as caught:
        lose()
    found = signal_behind(caught.value)
    assert found is not None
    assert found.exit_status == 143
    assert signal_behind(RuntimeError("a fault")) is None
