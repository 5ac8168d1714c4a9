"""A DICOMweb client for one archive: QIDO-RS, WADO-RS and STOW-RS (PS3.18), over connections that go nowhere else.

Needs the `dicom` extra. One origin is configured; its address is checked once and is the one that is connected to;
nothing is redirected; proxies and credentials of the environment are not used; every reply is bounded in time and size.
URLs are built from the configured origin and from UIDs that were checked, never from what a server sent.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import logging
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.connection import create_connection

from groundglass.errors import ConfigError, RemoteError
from groundglass.read.dicom import CT
from groundglass.read.identity import UID
from groundglass.read.limits import MIB

CONNECT, SILENCE, WHOLE = 5.0, 30.0, 300.0
ATTEMPTS, LONGEST_PAUSE = 5, 300.0
_JSON_BYTES, _PAGE, _MOST_ROWS = 64 * MIB, 500, 20_000
_RETRIED = (408, 429, 500, 502, 503, 504)
_MODALITY, _STUDY, _SERIES, _INSTANCE = "00080060", "0020000D", "0020000E", "00080018"
_CLASS, _INSTANCES_OF_SERIES = "00080016", "00201209"
# What the libraries raise for a reply that breaks PS3.18.
_BAD_REPLY = (OSError, ValueError, KeyError, TypeError, AttributeError)
T = TypeVar("T")


class _Passing(Exception):
    """A failure that may pass by itself."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the archive is: base URL without a slash at its end, and the address that its name stands for."""

    base: str
    host: str
    port: int
    address: str
    secure: bool

    @classmethod
    def parse(cls, url: str, allowed: Sequence[str] = ()) -> Origin:
        """Check a base URL and look its name up, once.

        A name that stands for this machine, a link-local or another special address is refused unless that address
        is in `allowed`; an address or `localhost` in the URL itself is taken at its word.
        Raises ConfigError (`url`), RemoteError (`unknown_host`, `address`).
        """
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        bad = parts.scheme not in ("http", "https") or not parts.hostname or port == -1
        if bad or parts.username is not None or parts.query or parts.fragment:
            raise ConfigError("url", "--url http(s)://HOST[:PORT]/PATH without a name, query or fragment", "another")
        host, secure = str(parts.hostname), parts.scheme == "https"
        port = port or (443 if secure else 80)
        address = _address(host, port, allowed)
        return cls(url.rstrip("/"), host, port, address, secure)


def _address(host: str, port: int, allowed: Sequence[str]) -> str:
    try:
        found = [str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise RemoteError("unknown_host", "an archive whose name has an address", "none", "correct --url") from error
    literal = host == "localhost" or _is_address(host)
    for address in found:
        plain = ipaddress.ip_address(address.split("%")[0])
        plain = getattr(plain, "ipv4_mapped", None) or plain  # ::ffff:127.0.0.1 goes where 127.0.0.1 goes
        special = plain.is_loopback or plain.is_link_local or plain.is_multicast or plain.is_unspecified
        if literal or address in allowed or not special:
            return address
    raise RemoteError(
        "address", "an archive on the network", f"a name that stands for {found[0]}", "list it with --allow-address"
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _connected(origin: Origin, live: list[HTTPConnection]) -> tuple[type[HTTPConnection], type[HTTPSConnection]]:
    """Connections that go to the checked address, whatever the name stands for by then; TLS still checks the name.

    `live` holds the newest one.
    """

    def dial(connection: HTTPConnection) -> socket.socket:
        live[:] = [connection]
        return create_connection((origin.address, origin.port), connection.timeout)

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return dial(self)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return dial(self)

    return Plain, Secure


class _Pinned(HTTPAdapter):
    def __init__(self, origin: Origin) -> None:
        super().__init__(max_retries=0)
        self.live: list[HTTPConnection] = []
        self._plain, self._secure = _connected(origin, self.live)

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **options)
        pool.ConnectionCls = self._secure if pool.scheme == "https" else self._plain
        return pool

    def hang_up(self) -> None:
        """End the request that is under way: a reply that drips keeps every single read alive."""
        for connection in self.live:
            sock = getattr(connection, "sock", None)
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


class _Session(requests.Session):
    """Requests to one origin, without redirects; bodies are read here, within bounds."""

    def __init__(self, origin: Origin, token: str | None) -> None:
        super().__init__()
        self.trust_env, self._origin = False, origin
        self.most, self.whole_seconds = _JSON_BYTES, WHOLE
        self.adapters.clear()
        self._pinned = _Pinned(origin)
        self.mount(origin.base.split("/", 3)[0] + "//", self._pinned)
        self.headers.update({"User-Agent": "groundglass", "Accept-Encoding": "identity"})
        if token is not None:
            self.headers["Authorization"] = f"Bearer {token}"

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        parts = urlsplit(str(request.url))
        where = (parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        if where != (self._origin.host, self._origin.port):
            raise RemoteError("origin", "requests to the configured archive only", "another address")
        request.headers["Host"] = parts.netloc  # dicomweb-client leaves the port out
        options |= {"stream": True, "allow_redirects": False, "timeout": (CONNECT, SILENCE)}
        watch = threading.Timer(self.whole_seconds, self._pinned.hang_up)
        watch.daemon = True
        watch.start()
        try:
            return self._answer(super().send(request, **options))
        finally:
            watch.cancel()

    def _answer(self, response: requests.Response) -> requests.Response:
        if 300 <= response.status_code < 400:
            response.close()
            raise RemoteError("redirect", "an answer", "a redirect", "give the final address as --url")
        response._content = _whole(response, self.most)
        response._content_consumed = True  # type: ignore[attr-defined]
        return response


def _whole(response: requests.Response, most: int) -> bytes:
    """The body as it came over the wire, or RemoteError: too long, cut, or too slow."""
    data = bytearray()
    if response.headers.get("Content-Encoding", "identity") != "identity":
        response.close()
        raise RemoteError("pacs", "a reply that is not compressed", "another", "switch its compression off")
    stated = response.headers.get("Content-Length", "")
    if stated.isdigit() and int(stated) > most:
        response.close()
        raise RemoteError("too_large", f"a reply of at most {most // MIB} MiB", "more", "ask for less")
    for part in response.iter_content(1 << 16):
        data += part
        if len(data) > most:
            response.close()
            raise RemoteError("too_large", f"a reply of at most {most // MIB} MiB", "more", "ask for less")
    if stated.isdigit() and len(data) != int(stated):
        raise _Passing("a cut reply")
    return bytes(data)


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """A CT series that the archive lists, and how many instances it says there are (0020,1209)."""

    study: str
    series: str
    stated: int | None = field(default=None, compare=False)


class Archive:
    """One DICOMweb archive. `sleep` and `rng` space out tries; five of them, then RemoteError."""

    def __init__(
        self, origin: Origin, token: str | None = None, most_bytes: int = 32 * MIB,
        sleep: Callable[[float], None] = time.sleep, rng: random.Random | None = None,
    ) -> None:  # fmt: skip
        for name in ("dicomweb_client", "urllib3", "requests"):
            logging.getLogger(name).addHandler(logging.NullHandler())
            logging.getLogger(name).propagate = False  # URLs hold identifiers of patients, headers hold the token
        if (
            token is not None
            and not origin.secure
            and not ipaddress.ip_address(origin.address.split("%")[0]).is_loopback
        ):
            raise ConfigError("token", "https for a token", "http", "it could be read on the way")
        self._origin, self._most_bytes = origin, most_bytes
        self._sleep, self._rng = sleep, rng or random.Random()
        self._session = _Session(origin, token)
        self._client = DICOMwebClient(origin.base, session=self._session)
        self._client.set_http_retry_params(retry=False)

    def series(self, filters: Mapping[str, str]) -> list[SeriesRow]:
        """The CT series of the studies that match: `PatientID`, `StudyDate`, `StudyInstanceUID` (QIDO-RS)."""
        studies = self._rows(lambda offset: self._client.search_for_studies(
            search_filters=dict(filters), limit=_PAGE, offset=offset), _STUDY)  # fmt: skip
        found: list[SeriesRow] = []
        for study in studies:
            rows = self._rows(lambda offset, study=study: self._client.search_for_series(  # type: ignore[misc]
                study, search_filters={"Modality": "CT"}, limit=_PAGE, offset=offset), _SERIES)  # fmt: skip
            found += [
                SeriesRow(study, uid, _count(row)) for uid, row in rows.items() if _text(row, _MODALITY) in (None, "CT")
            ]
        return found

    def instances(self, row: SeriesRow) -> list[str]:
        """The SOP Instance UIDs of the CT images of a series (QIDO-RS); what else lies in it is left out.

        Raises RemoteError (`incomplete`) if fewer instances are listed than the series is said to hold.
        """
        rows = self._rows(lambda offset: self._client.search_for_instances(
            row.study, row.series, limit=_PAGE, offset=offset), _INSTANCE, row.stated)  # fmt: skip
        if len(rows) < (row.stated or 0):
            raise RemoteError("incomplete", f"{row.stated} instances listed", len(rows), "look at the archive")
        return [uid for uid, found in rows.items() if _text(found, _CLASS) in (None, CT)]

    def _rows(
        self, page: Callable[[int], list[dict[str, Any]]], key: str, stated: int | None = None
    ) -> dict[str, dict[str, Any]]:
        """All rows by UID: page after page until one brings nothing new, or as many as `stated` are there.

        A server may send fewer rows a page than were asked for, so a short page is not the last one (PS3.18 8.3.4.4);
        one that ignores `offset` sends a page again and again, and that ends here too.
        """
        found: dict[str, dict[str, Any]] = {}
        while True:
            self._session.most = _JSON_BYTES
            rows = self._tried(lambda: page(len(found)))
            if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                raise RemoteError("pacs", "a list of DICOM JSON objects", "something else", "check --url")
            new = {_uid(_text(row, key)): row for row in rows}
            if not new.keys() - found.keys():
                return found
            found.update(new)
            if len(found) > _MOST_ROWS:
                raise RemoteError("too_many", f"at most {_MOST_ROWS} matches", "more", "narrow the search")
            if stated is not None and len(found) >= stated:
                return found

    def retrieve(self, row: SeriesRow, instance: str) -> bytes:
        """One instance as a Part 10 file (WADO-RS), as it was stored or uncompressed."""
        url = f"{self._origin.base}/studies/{_uid(row.study)}/series/{_uid(row.series)}/instances/{_uid(instance)}"
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'

        def fetch() -> bytes:
            self._session.most = self._most_bytes + MIB
            response = self._session.get(url, headers={"Accept": accept})
            response.raise_for_status()
            return single_part(response.content, response.headers.get("Content-Type", ""))

        return self._tried(fetch)

    def store(self, data: bytes, study: str) -> str | None:
        """Store one instance in a study (STOW-RS); None if it was taken, else why not."""
        ds = dcmread(io.BytesIO(data))
        self._session.most = _JSON_BYTES
        try:
            answer = self._tried(lambda: self._client.store_instances([ds], _uid(study)))
        except requests.HTTPError as error:
            return f"HTTP status {_status(error)}"
        for item in answer.get("FailedSOPSequence", []):
            reason = item.get("FailureReason")
            return f"STOW-RS failure 0x{int(reason):04X}" if reason is not None else "STOW-RS failure"
        return None

    def _tried(self, work: Callable[[], T]) -> T:
        """`work`, again after failures that may pass, with pauses that double and jitter.

        Raises RemoteError; requests.HTTPError only for status 400, 409 and 415, which speak of one instance.
        """
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._sleep(min(LONGEST_PAUSE, 2.0**attempt) * self._rng.uniform(0.5, 1.0))
            try:
                return work()
            except requests.HTTPError as error:
                status = _status(error)
                if status in (400, 409, 415):
                    raise
                if status not in _RETRIED:
                    hint = "check --token-file" if status in (401, 403) else "check --url"
                    raise RemoteError("pacs", "an answer from the archive", f"HTTP status {status}", hint) from error
                reason = f"HTTP status {status}"
            except requests.exceptions.SSLError as error:
                hint = "give its authority with --ca"
                raise RemoteError("tls", "a certificate that holds", "another", hint) from error
            except requests.JSONDecodeError as error:
                raise RemoteError("pacs", "DICOM JSON from the archive", "something else", "check --url") from error
            except requests.RequestException as error:
                reason = type(error).__name__
            except _Passing as error:
                reason = str(error)
            except _BAD_REPLY as error:
                raise RemoteError("pacs", "a reply by DICOM PS3.18", type(error).__name__, "check --url") from error
        raise RemoteError("pacs", f"an answer from the archive within {ATTEMPTS} tries", reason, "is it running?")

    def trust(self, authority: str) -> None:
        """Take certificates of this authority only (a PEM file)."""
        self._session.verify = authority


def _status(error: requests.HTTPError) -> int:
    return 0 if error.response is None else error.response.status_code


def _value(row: Mapping[str, Any], tag: str) -> object:
    """The first value of an element in DICOM JSON, or None."""
    element = row.get(tag)
    value = element.get("Value") if isinstance(element, dict) else None
    return value[0] if isinstance(value, list) and value else None


def _text(row: Mapping[str, Any], tag: str) -> str | None:
    value = _value(row, tag)
    return value if isinstance(value, str) else None


def _count(row: Mapping[str, Any]) -> int | None:
    """NumberOfSeriesRelatedInstances; DICOM JSON has an IS as number or as text (PS3.18 F.2.3)."""
    text = str(_value(row, _INSTANCES_OF_SERIES))
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _uid(value: str | None) -> str:
    """A UID that may stand in a URL. Raises RemoteError (`bad_uid`)."""
    if value is None or not UID.match(value):
        raise RemoteError("bad_uid", "a UID of digits and dots", "something else", "the archive's reply is not used")
    return value


def single_part(body: bytes, content_type: str) -> bytes:
    """The one part of a multipart/related reply, whole (RFC 2046 5.1). Raises RemoteError, _Passing for a cut one."""
    if content_type.split(";")[0].strip().lower() == "application/dicom":
        return body
    found = re.search(r'boundary="?([^";]{1,70})"?', content_type)
    if not content_type.lower().startswith("multipart/related") or found is None:
        raise RemoteError("pacs", "multipart/related with a boundary", "another type of reply", "check --url")
    marker = b"--" + found[1].strip().encode("ascii", "replace")
    start, end = body.find(marker + b"\r\n"), body.rfind(b"\r\n" + marker + b"--")
    if start < 0:
        raise RemoteError("pacs", "a reply that holds its boundary", "none", "look at the archive")
    if end < 0:
        raise _Passing("a cut reply")
    head, separator, content = body[start:end].partition(b"\r\n\r\n")
    if not separator or b"\r\n" + marker + b"\r\n" in content:
        raise RemoteError("pacs", "one instance in a reply", "another number", "look at the archive")
    if b"application/dicom" not in head.lower():
        raise RemoteError("pacs", "an application/dicom part", "another", "look at the archive")
    return content
