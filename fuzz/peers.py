"""Peers of the soak of node and watch: they stall, half-close, lie about lengths, and come back.

The node is sent studies by C-STORE while others do as they like with its port, and its results go to an archive that
is at times away. The watch looks at a DICOMweb archive whose replies are at times late, cut, too long or none at all.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzz.clients import Visit
from fuzz.processes import files_below
from fuzz.soak import Figure, Soak, figures, save
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import CTImageStorage, StudyRootQueryRetrieveInformationModelFind

from groundglass.phantom.chest import chest_volume
from groundglass.phantom.files import write_dicom_series
from groundglass.report.dicom import to_bytes

_ROOT = "1.2.826.0.1.3680043.8.498.99"
# Seconds between two samples; for the last answers and deliveries; after which a held connection counts as not ended.
_SAMPLE, _SETTLE, _HELD = 5.0, 600.0, 120.0


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Studies:
    """Studies without end: the same drawn chest, each time under new UIDs."""

    def __init__(self, folder: Path) -> None:
        write_dicom_series(folder, chest_volume(np.random.default_rng(2), slices=8, size=128), seed=2)
        self._slices = [dcmread(path) for path in sorted(folder.iterdir())]
        self._number = 0
        self._lock = threading.Lock()

    def next(self) -> list[Dataset]:
        with self._lock:
            self._number += 1
            number = self._number
        study: list[Dataset] = []
        for index, ds in enumerate(self._slices):
            new = dcmread(BytesIO(to_bytes(ds)))  # a copy that shares nothing
            new.StudyInstanceUID, new.SeriesInstanceUID = f"{_ROOT}.{number}", f"{_ROOT}.{number}.1"
            new.SOPInstanceUID = new.file_meta.MediaStorageSOPInstanceUID = f"{_ROOT}.{number}.1.{index + 1}"
            new.PatientID = f"SOAK{number}"
            study.append(new)
        return study


@contextmanager
def running(words: Sequence[str], store: Path, until: str) -> Iterator[subprocess.Popen[str]]:
    """A door that has said on standard error that it listens or watches; its log lies beside its store."""
    log = store.with_name(f"{store.name}.log")
    with log.open("w") as file:
        command = [sys.executable, "-m", "groundglass", *words, "--store", str(store)]
        process = subprocess.Popen(command, stderr=file, text=True, env={**os.environ, "TMPDIR": str(store.parent)})
    try:
        while until not in (text := log.read_text()):
            if process.poll() is not None:
                raise SystemExit(text)
            time.sleep(0.2)
        yield process
        if process.poll() is not None:
            raise SystemExit(f"the door ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def counts(store: Path) -> dict[str, Any]:
    """What the worklist of a store says of itself."""
    words = [sys.executable, "-m", "groundglass", "node", "status", "--store", str(store), "--json"]
    return dict(json.loads(subprocess.run(words, capture_output=True, check=True, text=True).stdout))


def sampled(soak: Soak, pid: int, store: Path, options: argparse.Namespace, door: str) -> Callable[[], None]:
    """Takes a sample now and then, and saves once a minute."""
    last = {"sample": 0.0, "save": 0.0}

    def tick() -> None:
        if soak.now() - last["sample"] > _SAMPLE:
            last["sample"] = soak.now()
            soak.sample(pid, lambda: _waiting(store))
        if soak.now() - last["save"] > 60:
            last["save"] = soak.now()
            save(options.output, door, figures(soak, options.warm_up, None, None, None), soak)

    return tick


def _waiting(store: Path) -> int:
    return len(files_below(store / "incoming"))


def _finished(
    soak: Soak, pid: int, store: Path, options: argparse.Namespace, more: Callable[[], list[Figure]]
) -> list[Figure]:
    """The figures once everything is answered and delivered, or after `_SETTLE` seconds."""
    until = time.monotonic() + _SETTLE
    while time.monotonic() < until:
        now = counts(store)
        if not now["studies_receiving"] and not now["results_waiting"]:
            break
        time.sleep(5)
    time.sleep(45)  # the longest that a door bears with a silent peer
    end = soak.sample(pid, lambda: _waiting(store))
    warm = next((held for at, held, _ in soak.samples if at > options.warm_up), end)
    rows = figures(soak, options.warm_up, end, warm, _waiting(store)) + more()
    said = counts(store)
    rows += [(name.replace("_", " "), float(value), "") for name, value in said.items() if isinstance(value, int)]
    save(options.output, options.door, rows, soak)
    return [row for row in rows if row[0] != "process"]


# ---- the node -------------------------------------------------------------------------------------------------------


class Destination:
    """Where the node's results go: a C-STORE provider that at times refuses, stalls, hangs up, or is away."""

    def __init__(self, rng: Random) -> None:
        self.port, self.rng, self.taken = free_port(), rng, Counter[str]()
        self._server: Any = None
        self.come()

    def come(self) -> None:
        self._ae = AE(ae_title="ARCHIVE")
        for context in AllStoragePresentationContexts:
            self._ae.add_supported_context(context.abstract_syntax, [ExplicitVRLittleEndian])
        self._ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        handlers = [(evt.EVT_C_STORE, self._stored), (evt.EVT_C_FIND, self._found)]
        with contextlib.suppress(OSError):
            self._server = self._ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def go(self) -> None:
        self._ae.shutdown()

    def _stored(self, event: evt.Event) -> int:
        mood = self.rng.random()
        if mood < 0.03:
            time.sleep(20)
        elif mood < 0.06:
            event.assoc.abort()
            return 0x0000
        elif mood < 0.09:
            return 0xA700
        self.taken[str(event.request.AffectedSOPInstanceUID)] += 1
        return 0x0000

    def _found(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        uid = str(event.identifier.SOPInstanceUID)
        if self.taken[uid]:
            answer = Dataset()
            answer.QueryRetrieveLevel, answer.SOPInstanceUID = "IMAGE", uid
            yield 0xFF00, answer
        yield 0x0000, None


class Senders:
    """Peers of the node's port, one call each."""

    def __init__(self, port: int, studies: Studies, rng: Random) -> None:
        self.port, self.studies, self.rng = port, studies, rng
        self.sent = self.cut_off = 0

    def visit(self) -> Visit:
        """Half of the peers send a study, the others are hostile."""
        name, work = ("study", self._study) if self.rng.random() < 0.5 else self.rng.choice(self._hostile())
        visit = Visit("study" if name == "study" else "hostile")
        began = time.perf_counter()
        try:
            visit.fault = work()
        except OSError as error:
            visit.fault = "" if visit.kind == "hostile" else f"study: {type(error).__name__}"
        visit.seconds.append(time.perf_counter() - began) if visit.kind == "study" else None
        return visit

    def _associated(self, title: str = "SENDER") -> Any:
        ae = AE(ae_title=title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 120
        ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        return ae.associate("127.0.0.1", self.port, ae_title="GROUNDGLASS")

    def _study(self) -> str:
        """Sends a study, what was not taken again over a new association, as a modality does."""
        left = {str(ds.SOPInstanceUID): ds for ds in self.studies.next()}
        refused: set[int] = set()
        for _ in range(20):
            assoc = self._associated()
            for uid, ds in list(left.items()):
                if not assoc.is_established:
                    break
                status = getattr(assoc.send_c_store(ds), "Status", None)
                if status == 0:
                    del left[uid]
                elif status is not None:
                    refused.add(status)
            if assoc.is_established:
                assoc.release()
            if not left:
                break
            self.cut_off += 1
            time.sleep(2)
        self.sent += not left
        return f"study: {len(left)} slices not taken" if left else f"study: status {refused}" if refused else ""

    def _hostile(self) -> list[tuple[str, Callable[[], str]]]:
        associate = b"\x01\x00" + struct.pack(">I", 500)
        return [
            ("silent", lambda: self._raw()),
            ("half a head", lambda: self._raw(b"\x01\x00\x00")),
            ("half a PDU", lambda: self._raw(associate + bytes(100))),
            ("half a PDU, then half-closed", lambda: self._raw(associate + bytes(100), half_close=True)),
            ("4 GiB announced", lambda: self._raw(b"\x04\x00\xff\xff\xff\xff" + bytes(1 << 16))),
            ("a length too short", lambda: self._raw(b"\x01\x00\x00\x00\x00\x02" + bytes(400))),
            ("HTTP", lambda: self._raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
            ("noise", lambda: self._raw(self.rng.randbytes(2000))),
            ("unknown title", self._unknown),
            ("abort in the middle", self._abort),
            ("leaves in the middle", self._leave),
        ]

    def _raw(self, *sent: bytes, half_close: bool = False) -> str:
        """Sends and waits until the node ends the connection."""
        peer = socket.create_connection(("127.0.0.1", self.port), timeout=_HELD)
        with peer as connection, contextlib.suppress(ConnectionError):
            for data in sent:
                connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass
        return ""

    def _unknown(self) -> str:
        assoc = self._associated("STRANGER")
        if assoc.is_established:
            assoc.abort()
            return "a stranger got an association"
        return ""

    def _abort(self) -> str:
        assoc = self._associated()
        if assoc.is_established:
            with contextlib.suppress(RuntimeError):  # it ended first
                assoc.send_c_store(self.studies.next()[0])
            assoc.abort()
        return ""

    def _leave(self) -> str:
        assoc = self._associated()
        if assoc.is_established:
            with contextlib.suppress(OSError, AttributeError, RuntimeError):
                assoc.send_c_store(self.studies.next()[0])
                assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
            assoc.kill()
        return ""


def node(options: argparse.Namespace) -> list[Figure]:
    """The soak of `groundglass node`."""
    rng = Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        store, port, archive = Path(name) / "store", free_port(), Destination(rng)
        words = ["node", "--port", str(port), "--send-to", f"ARCHIVE@127.0.0.1:{archive.port}", "--peer"]
        with running([*words, "SENDER@127.0.0.1", "--quiet-time", "5"], store, "listens at") as process:
            senders, soak = Senders(port, Studies(Path(name) / "chest"), rng), Soak()
            tick = sampled(soak, process.pid, store, options, "node")
            threads: list[threading.Thread] = []
            away = 0.0
            while soak.now() < options.seconds:
                threads = [thread for thread in threads if thread.is_alive()]
                if len(threads) < 8:
                    threads.append(threading.Thread(target=lambda: soak.saw(senders.visit()), daemon=True))
                    threads[-1].start()
                if soak.now() - away > 600:  # a minute in ten nobody takes results
                    archive.go()
                if soak.now() - away > 660:
                    away = soak.now()
                    archive.come()
                tick()
                time.sleep(rng.expovariate(options.rate))
            for thread in threads:
                thread.join(_HELD)
            archive.go()
            archive.come()
            rows = _finished(soak, process.pid, store, options, lambda: [
                ("studies sent whole", senders.sent, ""),
                ("associations of good peers that ended early, after which the rest came again", senders.cut_off, ""),
                ("objects that the archive has", len(archive.taken), ""),
                ("objects that the archive was given twice", sum(n > 1 for n in archive.taken.values()), ""),
            ])  # fmt: skip
        archive.go()
    return rows


# ---- the watch ------------------------------------------------------------------------------------------------------


class Web:
    """A DICOMweb archive of a few studies at a time, whose replies are not always what they should be."""

    def __init__(self, studies: Studies, rng: Random) -> None:
        self.rng, self.studies = rng, studies
        self.held: dict[str, dict[str, bytes]] = {}
        self.offered, self.stored, self.moods = 0, Counter[str](), Counter[str]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.reply(self, outer.content(self.path.split("?")[0]))

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.reply(self, (b"{}", "application/dicom+json"), self.path)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def grow(self) -> None:
        """One more study, and no more than four of them."""
        study = self.studies.next()
        self.held[str(study[0].StudyInstanceUID)] = {str(ds.SOPInstanceUID): to_bytes(ds) for ds in study}
        self.offered += 1
        for old in list(self.held)[:-4]:
            del self.held[old]

    def content(self, path: str) -> tuple[bytes, str] | None:
        parts = [part for part in path.split("/") if part][1:]  # without /dicom-web
        if parts == ["studies"]:
            return _rows(*({"0020000D": uid} for uid in self.held))
        files = self.held.get(parts[1], {}) if len(parts) > 1 else {}
        if parts[2:] == ["series"]:
            return _rows({"0020000E": f"{parts[1]}.1"}) if files else _rows()
        if parts[-1] == "instances":
            return _rows(*({"00080018": uid} for uid in files))
        data = files.get(parts[-1])
        part = b"--mark\r\nContent-Type: application/dicom\r\n\r\n" + (data or b"") + b"\r\n--mark--\r\n"
        return None if data is None else (part, 'multipart/related; type="application/dicom"; boundary=mark')

    def reply(self, handler: BaseHTTPRequestHandler, content: tuple[bytes, str] | None, stored: str = "") -> None:
        mood = self.rng.choices(
            ["good", "late", "cut", "html", "503", "gone", "long", "drip"], [92, 1, 2, 1, 1, 1, 1, 1]
        )[0]
        self.moods[mood] += 1
        data, kind = content or (b"", "text/plain")
        stated, status = len(data), 200 if content else 404
        if mood == "late":
            time.sleep(35)
        elif mood == "cut":
            data = data[: len(data) // 2]
        elif mood == "html":
            data, kind = b"<html>log in</html>", "text/html"
            stated = len(data)
        elif mood == "503":
            data, stated, status = b"", 0, 503
        elif mood == "long":
            stated += 5 << 30
        elif mood == "gone":
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        elif stored and mood == "good":
            self.stored[stored] += 1
        with contextlib.suppress(OSError):
            handler.send_response(status)
            handler.send_header("Content-Type", kind)
            handler.send_header("Content-Length", str(stated))
            handler.end_headers()
            for at in range(0, len(data), 50 if mood == "drip" else 1 << 20):
                handler.wfile.write(data[at : at + (50 if mood == "drip" else 1 << 20)])
                if mood == "drip":
                    time.sleep(0.5)
        handler.close_connection = mood != "good"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def _rows(*objects: dict[str, str]) -> tuple[bytes, str]:
    listed = [{tag: {"vr": "UI", "Value": [value]} for tag, value in one.items()} for one in objects]
    return json.dumps(listed).encode(), "application/dicom+json"


def watch(options: argparse.Namespace) -> list[Figure]:
    """The soak of `groundglass pacs watch`."""
    rng = Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        store, web = Path(name) / "store", Web(Studies(Path(name) / "chest"), rng)
        words = ["pacs", "watch", "--url", f"http://127.0.0.1:{web.port}/dicom-web", "--patient", "SOAK"]
        with running([*words, "--every", "5", "--quiet-time", "5"], store, "watching") as process:
            soak = Soak()
            tick = sampled(soak, process.pid, store, options, "watch")
            while soak.now() < options.seconds:
                web.grow()
                soak.saw(Visit("study"))
                until = soak.now() + rng.expovariate(options.rate)
                while soak.now() < min(until, options.seconds):
                    tick()
                    time.sleep(1.0)
            rows = _finished(soak, process.pid, store, options, lambda: [
                ("studies offered", web.offered, ""),
                ("studies that results were stored for", len(web.stored), ""),
                *((f"replies, {mood}", count, "") for mood, count in sorted(web.moods.items())),
            ])  # fmt: skip
        web.close()
    return rows
