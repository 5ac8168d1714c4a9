"""DICOM associations: a C-STORE receiver that tolerates faulty peers, and a sender (PS3.7, PS3.8).

Needs the `dicom` extra. pynetdicom reads PDUs of any length and waits for the rest of one without a limit. This module
limits both at the socket, before pynetdicom reads a byte.
"""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from groundglass.errors import INPUT_CODES, ConfigError, InputError, OutputError, RemoteError
from groundglass.read.limits import MIB
from groundglass.remote.inbox import Conflict, Inbox, Mismatch
from groundglass.remote.worklist import Outgoing

ASSOCIATIONS = 10
PDU_BYTES = MIB
# Seconds: for the first PDU of a connection, for silence inside a PDU, for one whole PDU, between PDUs.
GREETING, SILENCE, WHOLE_PDU, IDLE = 4.0, 5.0, 30.0, 30.0
CONNECT = 5.0
# Not the deflated syntax, whose 2 MB may inflate to 4 GB, and no compressed one: the sender can decompress such CT.
SYNTAXES: list[str | UID] = [ImplicitVRLittleEndian, ExplicitVRLittleEndian]
# A-ABORT by the service provider, no reason given (PS3.8 9.3.8).
_ABORT = bytes.fromhex("07000000000400000200")
_TAKEN, _FULL, _NO_CLASS, _MISMATCH, _BAD_UID, _UNREADABLE, _OURS = (
    0x0000, 0xA700, 0x0122, 0xA900, 0x0117, 0xC000, 0x0110,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Peer:
    """Another application entity, `AET@host` or `AET@host:port`."""

    aet: str
    host: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Peer:
        """Raises ConfigError if the text is no AET@host or AET@host:port."""
        aet, at, place = text.partition("@")
        host, _, port = place.rpartition(":") if ":" in place and not place.endswith("]") else (place, "", "")
        if not at or not host or not 1 <= len(aet.strip()) <= 16 or (port and not port.isdigit()):
            raise ConfigError("peer", "a peer as AET@host or AET@host:port", repr(text), "correct it")
        if port and not 0 < int(port) < 65536:
            raise ConfigError("peer", "a port from 1 to 65535", port, "correct it")
        return cls(aet.strip(), host.strip("[]"), int(port) if port else None)


def quieten() -> None:
    """Silence the logs and warnings of pynetdicom and pydicom, because they quote values of patients."""
    logging.captureWarnings(True)
    for name in ("pynetdicom", "pydicom", "py.warnings"):
        logging.getLogger(name).addHandler(logging.NullHandler())
        logging.getLogger(name).propagate = False
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.ENFORCE_UID_CONFORMANCE = True


# ---- receiving ------------------------------------------------------------------------------------------------------


class Receiver:
    """A C-STORE SCP for CT from known peers, and C-ECHO; a context manager.

    Every instance that was answered with 0x0000 is on disk. Raises RemoteError if a peer's name has no address,
    OutputError if the port is taken.
    """

    def __init__(self, inbox: Inbox, aet: str, host: str, port: int, peers: Sequence[Peer]) -> None:
        self._inbox, self._host, self._port = inbox, host, port
        self._addresses = {(peer.aet, address) for peer in peers for address in addresses(peer.host)}
        self.received = 0
        self._ae = AE(ae_title=aet)
        self._ae.require_called_aet = True
        self._ae.maximum_associations = ASSOCIATIONS
        self._ae.maximum_pdu_size = PDU_BYTES - 6
        self._ae.acse_timeout, self._ae.dimse_timeout, self._ae.network_timeout = GREETING, IDLE, IDLE
        self._ae.supported_contexts = [build_context(CTImageStorage, SYNTAXES), build_context(Verification, SYNTAXES)]

    def __enter__(self) -> Receiver:
        quieten()
        handlers: list[Any] = [
            *_GUARDED,
            (evt.EVT_REQUESTED, self._admit),
            (evt.EVT_C_STORE, self._store),
        ]
        try:
            self._server = self._ae.start_server((self._host, self._port), block=False, evt_handlers=handlers)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise OutputError("port", "a free port", f"{reason!r} for {self._port}", "choose another --port") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._ae.shutdown()

    def _admit(self, event: evt.Event) -> None:
        """Reject a peer whose title and address are not known (PS3.8 9.3.4: calling AE not recognised)."""
        assoc: Any = event.assoc
        caller = (str(assoc.requestor.primitive.calling_ae_title).strip(), _plain(assoc.requestor.address))
        if caller not in self._addresses:
            assoc.acse.send_reject(0x01, 0x01, 0x03)
            assoc.is_rejected = True
            assoc.kill()

    def _store(self, event: evt.Event) -> int:
        try:
            return self._taken(event)
        except Exception:  # the peer gets a failure status, and the next instance is received
            return _OURS

    def _taken(self, event: evt.Event) -> int:
        request: Any = event.request
        if request.AffectedSOPClassUID != CTImageStorage:
            return _NO_CLASS
        try:
            self._inbox.take(event.encoded_dataset(), str(request.AffectedSOPInstanceUID or ""))
        except InputError as error:
            return _BAD_UID if error.code == "bad_uid" else _FULL if INPUT_CODES[error.code] == 413 else _UNREADABLE
        except (Conflict, Mismatch):
            return _MISMATCH
        except OutputError:
            return _FULL
        self.received += 1
        return _TAKEN


def _guard(event: evt.Event) -> None:
    """Limit what pynetdicom reads from a connection, and end the connection if pynetdicom fails."""
    assoc: Any = event.assoc
    _bound(assoc)
    machine = assoc.dul.state_machine
    act = machine.do_action

    def acted(happened: str) -> None:
        try:
            act(happened)
        except Exception:  # else its thread would end with a traceback, which may quote data of a patient
            with contextlib.suppress(OSError):
                assoc.dul.socket.send(_ABORT)
            assoc.is_aborted, assoc.is_established = True, False
            assoc._kill = assoc.dul._kill_thread = True

    machine.do_action = acted


def _bound(assoc: Any) -> None:
    """Limit PDU length, time, and the size of one message."""
    wrapped: Any = assoc.dul.socket
    raw: socket.socket = wrapped.socket
    between = SILENCE if assoc.is_acceptor else IDLE  # an archive may be slow to receive
    most = 2 * 32 * MIB  # a status refuses an instance over the limit; one far over it ends the association

    def recv(length: int) -> bytearray:
        message = assoc.dimse.message
        held = 0 if message is None or message.data_set is None else message.data_set.getbuffer().nbytes
        if length > PDU_BYTES or held > most:
            raise OSError("a PDU or a message over the limit")
        deadline, data = time.monotonic() + WHOLE_PDU, bytearray()
        while len(data) < length:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            raw.settimeout(min(SILENCE, left))
            part = raw.recv(min(length - len(data), 1 << 16))
            if not part:
                break
            data += part
        raw.settimeout(between)
        return data

    raw.settimeout(between)
    wrapped.recv = recv


_GUARDED: list[Any] = [(evt.EVT_CONN_OPEN, _guard)]


def addresses(host: str) -> set[str]:
    """The addresses of a host. Raises RemoteError if it has none."""
    try:
        return {_plain(str(found[4][0])) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        raise RemoteError("unknown_host", "a name that has an address", repr(host), "correct it") from error


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:").split("%")[0]


# ---- sending --------------------------------------------------------------------------------------------------------


def sender(
    target: Peer, own_aet: str, sending: Callable[[str], None], waiting: Callable[[str], None]
) -> Callable[[Sequence[Outgoing]], Iterator[tuple[Outgoing, str | None]]]:  # fmt: skip
    """A function that delivers objects to `target` by C-STORE, in one association a call.

    It calls `sending` before the first byte of an object, and `waiting` if the object certainly did not arrive.
    """

    def deliver(items: Sequence[Outgoing]) -> Iterator[tuple[Outgoing, str | None]]:
        association = _associate(target, own_aet, items)
        try:
            for item in items:
                if item.uncertain and _has(association, item):
                    yield item, None
                    continue
                sending(item.uid)
                status = _send(association, item)
                if status is None:
                    raise RemoteError("pacs", "an answer to C-STORE", "none", "look at the archive's log")
                if 0xA700 <= status <= 0xA7FF:
                    waiting(item.uid)
                    raise RemoteError("pacs", "an archive with room", f"status 0x{status:04X}", "free some there")
                taken = status == 0 or 0xB000 <= status <= 0xBFFF
                yield item, None if taken else f"C-STORE status 0x{status:04X}"
        finally:
            if association.is_established:
                association.release()

    return deliver


def _associate(target: Peer, own_aet: str, items: Sequence[Outgoing]) -> Any:
    quieten()
    ae = AE(ae_title=own_aet)
    ae.acse_timeout, ae.dimse_timeout, ae.network_timeout, ae.connection_timeout = IDLE, IDLE, IDLE, CONNECT
    for sop_class, syntax in dict.fromkeys((item.sop_class, _syntax(item)) for item in items):
        ae.add_requested_context(sop_class, syntax)
    for sop_class in dict.fromkeys(item.sop_class for item in items):
        ae.add_requested_context(sop_class, SYNTAXES)
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelFind, SYNTAXES)
    assert target.port is not None
    association = ae.associate(target.host, target.port, ae_title=target.aet, evt_handlers=_GUARDED)
    if association.is_established:
        return association
    how = "a rejection" if association.is_rejected else "no connection"
    raise RemoteError("pacs", f"an association with {target.aet}", how, "check AE titles, address and port there")


def _syntax(item: Outgoing) -> str:
    return str(dcmread(item.path, specific_tags=[], stop_before_pixels=True).file_meta.TransferSyntaxUID)


def _send(association: Any, item: Outgoing) -> int | None:
    """The status of a C-STORE; None if the peer did not answer."""
    ds = dcmread(io.BytesIO(item.path.read_bytes()))
    offered = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
    if not any(sop_class == item.sop_class for sop_class, _ in offered):
        return 0x0122
    syntax = ds.file_meta.TransferSyntaxUID
    if (item.sop_class, str(syntax)) not in offered and syntax.is_compressed:
        ds.decompress(generate_instance_uid=False)
    try:
        status = association.send_c_store(ds)
    except (RuntimeError, ValueError) as error:
        kind = type(error).__name__
        raise RemoteError("pacs", "an open association", kind, "look at the archive's log") from error
    return int(status.Status) if "Status" in status else None


def _has(association: Any, item: Outgoing) -> bool:
    """Whether the peer has an instance; False if it answers no queries, because a second copy does no harm.

    Raises RemoteError if the peer stops answering, because then the state is unknown.
    """
    if not any(c.abstract_syntax == StudyRootQueryRetrieveInformationModelFind for c in association.accepted_contexts):
        return False
    ours = dcmread(item.path, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"], stop_before_pixels=True)
    query = Dataset()
    query.QueryRetrieveLevel, query.SOPInstanceUID = "IMAGE", item.uid
    query.StudyInstanceUID, query.SeriesInstanceUID = ours.StudyInstanceUID, ours.SeriesInstanceUID
    found = False
    try:
        for status, identifier in association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind):
            if "Status" not in status:
                raise RemoteError("pacs", "an answer to C-FIND", "none", "look at the archive's log")
            found = found or (identifier is not None and identifier.get("SOPInstanceUID") == item.uid)
    except (RuntimeError, ValueError) as error:
        kind = type(error).__name__
        raise RemoteError("pacs", "an open association", kind, "look at the archive's log") from error
    return found


def echo(target: Peer, own_aet: str) -> bool:
    """Whether a peer answers a C-ECHO."""
    quieten()
    ae = AE(ae_title=own_aet)
    ae.acse_timeout, ae.dimse_timeout, ae.network_timeout, ae.connection_timeout = IDLE, IDLE, IDLE, CONNECT
    ae.add_requested_context(Verification)
    assert target.port is not None
    association = ae.associate(target.host, target.port, ae_title=target.aet, evt_handlers=_GUARDED)
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return bool(status.get("Status") == 0)
