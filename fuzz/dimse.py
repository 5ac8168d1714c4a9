"""Tries `groundglass node` with damaged messages: a real exchange is recorded, and played again with one PDU changed.

Held to: the connection ends; the node lives, says no traceback, and takes the next good association; nothing half
received lies about; descriptors, threads and children are what they were.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from fuzz import seeds
from fuzz.laws import Broken
from fuzz.mutate import damaged
from fuzz.peers import free_port, running
from fuzz.processes import files_below, held
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, Verification  # type: ignore[attr-defined]

# Seconds within which a connection ends, and within which the node is quiet again; far more than it may take.
_ENDS, _QUIET = 300.0, 300.0
_LOOKS = 10


class Dimse:
    """The harness; see the top of this file."""

    families: Mapping[str, Any] = {
        "association": 0, "echo": 1, "store": 2, "release": -1, "lengths": None, "order": None, "noise": None,
        "two at once": None,
    }  # fmt: skip

    def __enter__(self) -> Dimse:
        self._folder = Path(tempfile.mkdtemp(prefix="fuzz-dimse-"))
        self._store, self._port = self._folder / "store", free_port()
        words = ["node", "--port", str(self._port), "--send-to", f"ARCHIVE@127.0.0.1:{free_port()}"]
        words += ["--peer", "SENDER@127.0.0.1", "--quiet-time", "3600"]  # nothing of this is ever answered
        self._stack = contextlib.ExitStack()
        self._process = self._stack.enter_context(running(words, self._store, "listens at"))
        self._pdus = _recorded(self._port)
        self._tried = self._read = 0
        self._good()
        self._settle()
        self._before = held(self._process.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        shutil.rmtree(self._folder)

    def one(self, family: str, rng: Random) -> str:
        """Play the exchange with one PDU changed; how it ended."""
        answers = self._play(self._changed(family, rng), half_close=rng.random() < 0.9)
        if self._process.poll() is not None:
            raise Broken("nothing ends the process", f"exit status {self._process.poll()}")
        self._tried += 1
        if self._tried % _LOOKS == 0:
            self._look()
        return answers

    def _changed(self, family: str, rng: Random) -> list[bytes]:
        pdus = list(self._pdus)
        match family:
            case "lengths":
                at = rng.randrange(len(pdus))
                said = rng.choice((0, 1, 3, len(pdus[at]) - 7, len(pdus[at]) - 5, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF))
                pdus[at] = pdus[at][:2] + struct.pack(">I", said) + pdus[at][6:]
            case "order":
                rng.shuffle(pdus)
                pdus = pdus[: rng.randrange(1, len(pdus) + 1)]
            case "noise":
                pdus.insert(rng.randrange(len(pdus)), rng.randbytes(rng.choice((1, 6, 200))))
            case "two at once":
                pdus = [b"".join(pdus[: rng.randrange(2, len(pdus) + 1)]), *pdus[-1:]]
            case _:
                at = min(self.families[family], len(pdus) - 1)
                at = rng.randrange(2, len(pdus) - 1) if family == "store" else at
                pdus[at] = damaged(pdus[at], rng, start=rng.choice((0, 6, 6)))
        return pdus

    def _play(self, pdus: list[bytes], half_close: bool) -> str:
        kinds: list[str] = []
        with (
            socket.create_connection(("127.0.0.1", self._port), timeout=_ENDS) as connection,
            contextlib.suppress(ConnectionError),
        ):
            for number, pdu in enumerate(pdus):
                connection.sendall(pdu)
                if number == 0:  # what follows may only be sent once the association stands
                    connection.settimeout(2.0)
                    with contextlib.suppress(TimeoutError):
                        kinds.append(_kind(connection.recv(1 << 16)))
                    connection.settimeout(_ENDS)
            if half_close:
                with contextlib.suppress(OSError):  # the node was first
                    connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(1 << 16):
                kinds.append(_kind(part))
        return kinds[0] if kinds else "closed"

    def _good(self) -> None:
        ae = AE(ae_title="SENDER")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 120
        ae.add_requested_context(Verification)
        until = time.monotonic() + _QUIET
        while time.monotonic() < until:
            assoc = ae.associate("127.0.0.1", self._port, ae_title="GROUNDGLASS")
            if assoc.is_established:
                status = assoc.send_c_echo()
                assoc.release()
                if getattr(status, "Status", None) == 0:
                    return
            time.sleep(1)
        raise Broken("the next one is answered", "no good association for minutes")

    def _look(self) -> None:
        self._good()
        text = self._store.with_name("store.log").read_text()
        new, self._read = text[self._read :], len(text)
        if "Traceback" in new:
            raise Broken("listed answer", f"on standard error: {new[-250:]}")
        self._settle()

    def _settle(self) -> None:
        """Wait until the node holds no more than at the start; the connections of this process may still close."""
        until, more = time.monotonic() + _QUIET, ["not looked at"]
        while more and time.monotonic() < until:
            time.sleep(0.5)
            now, before = held(self._process.pid), getattr(self, "_before", None)
            more = [str(path.name) for path in files_below(self._store / "incoming")]
            if before is not None:
                for name in ("descriptors", "threads", "children"):
                    if getattr(now, name) > getattr(before, name) + 1:
                        more.append(f"{getattr(now, name)} {name}, {getattr(before, name)} before")
        if more:
            raise Broken("nothing stays behind", more[0])


def _kind(data: bytes) -> str:
    names = {2: "accepted", 3: "rejected", 4: "data", 6: "released", 7: "aborted"}
    return names.get(data[0], "other") if data else "closed"


def _recorded(port: int) -> list[bytes]:
    """The PDUs that a good peer sends: association, echo, one slice, release. Taken down between peer and node."""
    with socket.create_server(("127.0.0.1", 0)) as between:
        said = bytearray()
        taking = threading.Thread(target=_between, args=(between, port, said), daemon=True)
        taking.start()
        ae = AE(ae_title="SENDER")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 120
        ae.add_requested_context(Verification, ExplicitVRLittleEndian)
        ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        assoc = ae.associate("127.0.0.1", between.getsockname()[1], ae_title="GROUNDGLASS")
        if not assoc.is_established:
            raise SystemExit("the node takes no association")
        assoc.send_c_echo()
        from io import BytesIO

        assoc.send_c_store(dcmread(BytesIO(seeds.dicom_in("explicit"))))
        assoc.release()
        taking.join(60)
    pdus: list[bytes] = []
    while said:
        end = 6 + struct.unpack_from(">I", said, 2)[0]
        pdus.append(bytes(said[:end]))
        del said[:end]
    return pdus


def _between(listening: socket.socket, port: int, said: bytearray) -> None:
    """Hand on everything between one peer and the node, and keep what the peer says."""
    peer, _ = listening.accept()
    with peer, socket.create_connection(("127.0.0.1", port)) as node:
        back = threading.Thread(target=_hand_on, args=(node, peer), daemon=True)
        back.start()
        with contextlib.suppress(OSError):
            while data := peer.recv(1 << 16):
                said += data
                node.sendall(data)
            node.shutdown(socket.SHUT_WR)
        back.join(30)


def _hand_on(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)


HARNESS = Dimse
