"""Bad peers of the C-STORE receiver (rows N01 to N10 of docs/concepts/bad-input.md), and many good ones."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    MRImageStorage,
)
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import CTImageStorage

from groundglass.errors import ConfigError, OutputError, RemoteError
from groundglass.read.isolate import Decoder
from groundglass.remote import dimse
from groundglass.remote.dimse import Peer, Receiver
from groundglass.remote.inbox import Inbox
from groundglass.remote.worklist import Outgoing, Worklist
from groundglass.report.dicom import to_bytes
from tests.remote import peers
from tests.remote.peers import ROOT, ct, free_port

TITLE = "SENDER"


class Node:
    """A receiver with its worklist, and ways to talk to it."""

    def __init__(self, worklist: Worklist, receiver: Receiver, port: int) -> None:
        self.worklist, self.receiver, self.port = worklist, receiver, port

    def associate(
        self, calling: str = TITLE, called: str = "GROUNDGLASS", sop_class: UID = CTImageStorage,
        syntax: UID = ExplicitVRLittleEndian,
    ) -> Association:  # fmt: skip
        ae = AE(ae_title=calling)
        ae.add_requested_context(sop_class, syntax)
        return ae.associate("127.0.0.1", self.port, ae_title=called)

    def send(self, ds: Dataset) -> int:
        association = self.associate(syntax=ds.file_meta.TransferSyntaxUID)
        assert association.is_established
        status = association.send_c_store(ds)
        association.release()
        return int(status.Status)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def files(self) -> list[Path]:
        return sorted(self.worklist.folder.rglob("*.dcm"))


@pytest.fixture(scope="module")
def node(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    port = free_port()
    with Worklist(tmp_path_factory.mktemp("node"), time.time) as worklist, Decoder() as decoder:
        inbox = Inbox(worklist, decoder)
        with Receiver(inbox, "GROUNDGLASS", "127.0.0.1", port, [Peer(TITLE, "127.0.0.1")]) as receiver:
            yield Node(worklist, receiver, port)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ended(connection: socket.socket, seconds: float) -> bool:
    """Whether the other side ends a connection in time; it may say A-ABORT first."""
    connection.settimeout(seconds)
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def drip(connection: socket.socket) -> None:
    for _ in range(600):
        connection.sendall(b"\0")
        time.sleep(0.1)


def test_N01_a_pdu_that_claims_four_gigabytes_is_not_read(node: Node) -> None:
    with node.connect() as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, 2**32 - 1))
        before = resident()
        try:
            for _ in range(64):
                connection.sendall(bytes(1 << 20))
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert ended(connection, 30)
    assert resident() - before < 50e6


def test_N02_thirty_silent_connections_end_and_let_others_in(node: Node) -> None:
    silent = [node.connect() for _ in range(30)]
    assert all(ended(connection, 30) for connection in silent)
    assert node.send(ct(2, 1)) == 0x0000


def test_N03_thirty_halves_of_a_pdu_end_and_let_others_in(node: Node) -> None:
    halves = [node.connect() for _ in range(30)]
    for connection in halves:
        connection.sendall(struct.pack(">BBL", 1, 0, 200) + bytes(100))
    assert all(ended(connection, 60) for connection in halves)
    assert node.send(ct(3, 1)) == 0x0000


def test_N03_a_pdu_that_drips_ends_too(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dimse, "WHOLE_PDU", 3.0)
    with node.connect() as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, 10_000))
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            drip(connection)


def test_N04_http_is_answered_with_an_abort(node: Node) -> None:
    with node.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n")
        connection.settimeout(30)
        assert connection.recv(1) == b"\x07"


NO_COMMAND = b"\x04\x00" + struct.pack(">II", 6, 2) + b"\x01\x03"  # the last fragment of a command of no elements


def test_N17_a_message_that_breaks_the_library_ends_its_connection_without_a_word(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    monkeypatch.setattr(threading, "excepthook", said.append)
    association = node.associate()
    association.dul.socket.socket.sendall(NO_COMMAND)
    for _ in range(600):
        if not association.is_alive():
            break
        time.sleep(0.1)
    assert association.is_aborted
    assert said == []
    assert node.send(ct(17, 1)) == 0


@pytest.mark.parametrize(("calling", "called"), [("STRANGER", "GROUNDGLASS"), (TITLE, "SOMEBODY")])
def test_N05_an_unknown_title_is_rejected(node: Node, calling: str, called: str) -> None:
    association = node.associate(calling, called)
    assert association.is_rejected


def test_N05_a_known_title_at_an_unknown_address_is_rejected(tmp_path: Path, decoder: Decoder) -> None:
    port = free_port()
    with Worklist(tmp_path / "store", time.time) as worklist:
        inbox = Inbox(worklist, decoder)
        with Receiver(inbox, "GROUNDGLASS", "127.0.0.1", port, [Peer(TITLE, "192.0.2.1")]) as receiver:
            assert Node(worklist, receiver, port).associate().is_rejected


@pytest.mark.parametrize(
    ("sop_class", "syntax"),
    [
        (CTImageStorage, DeflatedExplicitVRLittleEndian),  # N06
        (CTImageStorage, JPEGLosslessSV1),
        (MRImageStorage, ExplicitVRLittleEndian),
    ],
)
def test_N06_N09_deflated_compressed_and_other_than_ct_is_not_negotiated(
    node: Node, sop_class: UID, syntax: UID
) -> None:
    association = node.associate(sop_class=sop_class, syntax=syntax)
    assert not association.accepted_contexts
    association.abort()


def test_N07_the_announced_instance_is_the_one_that_comes(node: Node) -> None:
    before = node.files()
    ds = ct(7, 1)
    association = node.associate()
    request = _c_store(ds, f"{ROOT}.7.1.2")
    assert _raw_store(association, request) == 0xA900
    association.release()
    assert node.files() == before


def test_N07_an_instance_uid_that_is_a_path_reaches_no_file(node: Node) -> None:
    before = node.files()
    association = node.associate()
    assert _raw_store(association, _c_store(ct(7, 1), "../../evil")) in (0x0117, None)
    if association.is_established:
        association.release()
    assert node.files() == before
    assert not list(node.worklist.folder.parent.rglob("*evil*"))


def _c_store(ds: Dataset, uid: str) -> object:
    import io

    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.dsutils import encode

    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID = ds.SOPClassUID
    request._affected_sop_instance_uid = UID(uid)
    request.DataSet = io.BytesIO(encode(ds, False, True) or b"")
    return request


def _raw_store(association: Association, request: object) -> int | None:
    # as pynetdicom does before it asks: otherwise its own thread may take the answer
    association._reactor_checkpoint.clear()
    while not association._is_paused:
        time.sleep(0.01)
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)  # type: ignore[arg-type]
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return None if answer is None else int(answer.Status)  # type: ignore[union-attr]


def test_N08_an_abort_in_the_middle_leaves_nothing(node: Node) -> None:
    before, threads = node.files(), threading.active_count()
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        association = node.associate()
        association.dul.socket.socket.sendall(struct.pack(">BBLLBB", 4, 0, 100, 96, 1, 0) + bytes(20))  # type: ignore[union-attr]
        association.abort()
    for _ in range(1000):
        node.connect().close()
    for _ in range(300):
        if threading.active_count() <= threads + 5 and len(os.listdir("/proc/self/fd")) <= descriptors + 5:
            break
        time.sleep(0.1)
    assert threading.active_count() <= threads + 5
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 5
    assert node.files() == before
    assert list((node.worklist.folder / "incoming").iterdir()) == []
    assert node.send(ct(8, 1)) == 0x0000


def test_N10_the_same_instance_twice_is_taken_once_and_other_pixels_are_a_conflict(node: Node) -> None:
    assert node.send(ct(10, 1)) == 0x0000
    before = node.files()
    assert node.send(ct(10, 1)) == 0x0000
    assert node.send(ct(10, 1, PixelData=b"\7\0" * 64 * 64)) == 0xA900
    assert node.files() == before


def test_N10_the_same_image_in_another_transfer_syntax_is_the_same_image(node: Node) -> None:
    def implicit(**tags: object) -> Dataset:
        ds = ct(14, 1, **tags)
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        return ds

    assert node.send(ct(14, 1)) == 0x0000
    before = node.files(), node.worklist.counts()
    assert node.send(implicit()) == 0x0000
    assert (node.files(), node.worklist.counts()) == before
    assert node.send(implicit(PixelData=b"\7\0" * 64 * 64)) == 0xA900
    assert node.send(implicit(RescaleIntercept="0")) == 0xA900


def test_an_archive_that_hangs_up_when_asked_leaves_the_object_uncertain(
    archive: peers.Archive, tmp_path: Path
) -> None:
    ds, told = ct(15, 1), list[str]()
    (tmp_path / "one.dcm").write_bytes(to_bytes(ds))
    item = Outgoing(ds.SOPInstanceUID, CTImageStorage, tmp_path / "one.dcm", uncertain=True)
    deliver = dimse.sender(Peer.parse(archive.peer), "GROUNDGLASS", told.append, told.append)
    archive.hangs_up = True
    with pytest.raises(RemoteError):
        list(deliver([item]))
    assert (told, archive.came) == ([], {})
    archive.hangs_up = False
    assert list(deliver([item])) == [(item, None)]
    assert archive.came == {ds.SOPInstanceUID: 1}


def test_a_slice_over_the_limit_is_refused_by_status(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = node.receiver._inbox
    tight = Decoder(type(inbox._decoder.limits)(slice_bytes=4096))
    monkeypatch.setattr(inbox, "_decoder", tight)
    assert node.send(ct(11, 1)) == 0xA700


def test_no_room_is_a_refusal_by_status(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutputError("write_failed", "room", "none", "free some")

    monkeypatch.setattr("groundglass.remote.inbox.require_room", full)
    assert node.send(ct(12, 1)) == 0xA700


def test_our_fault_is_said_so_and_the_next_instance_is_taken(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("groundglass.remote.inbox.require_room", lambda _: 1 / 0)
        assert node.send(ct(13, 1)) == 0x0110
    assert node.send(ct(13, 1)) == 0x0000


@pytest.mark.slow
def test_L8_ten_associations_of_three_hundred_lose_nothing(tmp_path: Path, decoder: Decoder) -> None:
    port, acknowledged = free_port(), [dict[str, str]() for _ in range(10)]

    def send(node: Node, study: int) -> None:
        association, number = node.associate(), 1
        while number <= 300:
            ds = ct(100 + study, number, size=32)
            status = association.send_c_store(ds)
            if "Status" not in status:  # on a busy machine pynetdicom's own thread may take the answer: ask again
                association.abort()
                association = node.associate()
                continue
            if status.Status == 0:
                acknowledged[study][ds.SOPInstanceUID] = hashlib.sha256(ds.PixelData).hexdigest()
            number += 1
        association.release()

    with Worklist(tmp_path / "store", time.time) as worklist:
        inbox = Inbox(worklist, decoder)
        with Receiver(inbox, "GROUNDGLASS", "127.0.0.1", port, [Peer(TITLE, "127.0.0.1")]) as receiver:
            node = Node(worklist, receiver, port)
            senders = [threading.Thread(target=send, args=(node, study)) for study in range(10)]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()
        assert [len(of_one) for of_one in acknowledged] == [300] * 10
        assert len(node.files()) == 3000
        for study, of_one in enumerate(acknowledged):
            for uid, sha256 in of_one.items():
                place = worklist.place(f"{ROOT}.{100 + study}", f"{ROOT}.{100 + study}.1", uid)
                assert worklist.known(uid) == hashlib.sha256(place.read_bytes()).hexdigest()
                assert hashlib.sha256(place.read_bytes()[-2048:]).hexdigest() == sha256
        assert worklist.counts()["instances"] == 3000


def test_a_peer_is_a_title_at_a_host() -> None:
    assert Peer.parse("PACS@archive:104") == Peer("PACS", "archive", 104)
    assert Peer.parse("PACS@10.0.0.7") == Peer("PACS", "10.0.0.7", None)
    assert Peer.parse("PACS@[::1]:104") == Peer("PACS", "::1", 104)
    for wrong in ("", "PACS", "@host", "PACS@", "PACS@host:x", "PACS@host:99999", "A" * 17 + "@host"):
        with pytest.raises(ConfigError):
            Peer.parse(wrong)
