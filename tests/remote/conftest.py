"""A network of the tests' own, and the peers in it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundglass.infer.model import Model, load
from groundglass.read.isolate import Decoder
from tests.remote import peers
from tests.remote.archive_server import Server

_NEW_NETWORK = 0x40000000
_SET_FLAGS, _UP = 0x8914, 0x1


@pytest.fixture(scope="module", autouse=True)
def network() -> Iterator[None]:
    """Only a loopback that nobody else sees, where the machine allows it: orthanc binds every address there is.

    For one file of tests, so that the next one reaches what was started before.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    apart = libc.unshare(_NEW_NETWORK) == 0
    if apart:
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh", b"lo", _UP))
    yield
    if apart:
        assert libc.setns(before, _NEW_NETWORK) == 0
    os.close(before)


@pytest.fixture(scope="module")
def orthanc(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[peers.Orthanc]:
    """A running orthanc; skips where Debian's packages are not installed."""
    if absent := peers.missing():
        pytest.skip(f"{', '.join(absent)}: not installed; {peers.INSTALL}")
    with peers.orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture
def archive(network: None, tmp_path: Path) -> Iterator[peers.Archive]:
    (tmp_path / "archive").mkdir()
    running = peers.Archive(tmp_path / "archive")
    yield running
    running.close()


@pytest.fixture(scope="session")
def model() -> Model:
    return load(threads=1)


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    with Decoder() as worker:
        yield worker


@pytest.fixture
def server(network: None) -> Iterator[Server]:
    running = Server()
    yield running
    running.close()
