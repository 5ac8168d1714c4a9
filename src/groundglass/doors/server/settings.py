"""The settings of the service, and their checks before it starts."""

from __future__ import annotations

import ipaddress
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from groundglass.errors import ConfigError
from groundglass.read.limits import MIB, Limits

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
LEAST_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a request in bytes and seconds."""

    target_bytes: int = 8192
    header_bytes: int = 16 * 1024
    header_count: int = 100
    header_seconds: float = 10.0
    body_seconds: float = 300.0
    body_grace_seconds: float = 10.0
    body_bytes_per_second: int = 10_000
    write_seconds: float = 10.0
    busy_seconds: float = 0.2
    linger_seconds: float = 2.0
    linger_bytes: int = 64 * MIB
    keep_alive_seconds: int = 5
    stop_seconds: int = 30
    queue: int = 64
    requests: int = 1024
    files: int = 2000
    jobs: int = 128
    jobs_bytes: int = 256 * MIB
    job_seconds: float = 600.0
    client_requests: int = 8
    client_burst: int = 20
    client_per_minute: int = 60


@dataclass(frozen=True, slots=True)
class Settings:
    """One running service; `token` is None on loopback only."""

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    operating_point: str = "balanced"
    model: str | None = None
    token: str | None = None
    certificate: Path | None = None
    behind_proxy: bool = False
    allowed_hosts: tuple[str, ...] = ()
    keep: Path | None = None
    limits: Limits = field(default_factory=Limits)
    bounds: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        if self.local:
            return
        if self.token is None:
            raise ConfigError(
                "token",
                "a token",
                f"none for {self.host}",
                "give --token-file",
                about="an address other than loopback, or a proxy in front",
            )
        if self.certificate is None and not self.behind_proxy:
            raise ConfigError(
                "tls",
                "TLS",
                f"none for {self.host}",
                "give --certificate, or --behind-proxy where a proxy in front speaks it",
                about="an address other than loopback",
            )

    @property
    def local(self) -> bool:
        """Whether only this machine can connect: loopback, and no proxy that forwards requests of others."""
        return is_loopback(self.host) and not self.behind_proxy

    @property
    def names(self) -> frozenset[str]:
        """The names that a Host header may hold, without port."""
        named = self.host if ":" not in self.host else f"[{self.host}]"
        return frozenset(name.lower() for name in (*LOOPBACK_NAMES, named, *self.allowed_hosts))


def is_loopback(host: str) -> bool:
    """Whether `host` is an address or the name of this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """The token in a file that its owner alone may read, or a credential that systemd hands over.

    systemd keeps credentials of root with an access list for the service, which shows as 0440; no other user may open
    their folder. Raises ConfigError (`token`) for a file that others may read, and for a token shorter than 32 bytes.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(
            "token", "one that can be read", repr(error.strerror), "make it", about="token file"
        ) from error
    with os.fdopen(handle, "rb") as file:
        state = os.fstat(file.fileno())
        credential = str(path.parent) == os.environ.get("CREDENTIALS_DIRECTORY")
        if not stat.S_ISREG(state.st_mode) or state.st_mode & (0o037 if credential else 0o077):
            mode = stat.S_IMODE(state.st_mode)
            raise ConfigError("token", "mode 0600", f"{mode:04o}", "chmod 600 it", about="token file")
        content = file.read(4096).strip()
    if len(content) < LEAST_TOKEN_BYTES or not all(0x21 <= byte <= 0x7E for byte in content):
        raise ConfigError(
            "token",
            f"{LEAST_TOKEN_BYTES} visible ASCII characters or more",
            len(content),
            "write one with: (umask 077; openssl rand -hex 32 > FILE)",
            about="token file",
        )
    return content.decode("ascii")
