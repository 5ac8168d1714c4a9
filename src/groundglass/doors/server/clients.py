"""Limits for each client if other machines can connect: requests at a time and requests a minute."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from groundglass.doors.server.problem import Problem
from groundglass.doors.server.settings import Bounds


@dataclass(slots=True)
class _Client:
    tokens: float
    seen: float
    active: int = 0


class Clients:
    """A token bucket for each address; addresses without requests for a while are forgotten."""

    def __init__(self, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        self._bounds, self._clock = bounds, clock
        self._known: dict[str, _Client] = {}

    def enter(self, address: str) -> None:
        """Count a request. Raises Problem (429) if it is one too many."""
        bounds, now = self._bounds, self._clock()
        if len(self._known) > 10_000:
            self._known = {a: c for a, c in self._known.items() if c.active or now - c.seen < 60}
        client = self._known.setdefault(address, _Client(float(bounds.client_burst), now))
        refill = (now - client.seen) * bounds.client_per_minute / 60
        client.tokens, client.seen = min(float(bounds.client_burst), client.tokens + refill), now
        if client.active >= bounds.client_requests:
            most = f"at most {bounds.client_requests} requests at a time"
            raise Problem(429, "too_many_requests", most, "more", "wait for the others", headers={"Retry-After": "1"})
        if client.tokens < 1:
            wait = max(1, round((1 - client.tokens) * 60 / bounds.client_per_minute))
            most = f"at most {bounds.client_per_minute} requests a minute"
            raise Problem(429, "too_many_requests", most, "more", "wait", headers={"Retry-After": str(wait)})
        client.tokens -= 1
        client.active += 1

    def leave(self, address: str) -> None:
        """The request has ended."""
        self._known[address].active -= 1
