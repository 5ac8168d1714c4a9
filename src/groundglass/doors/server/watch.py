"""Progress and cancellation of one job."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from groundglass.infer.model import Model
from groundglass.infer.network import Network
from groundglass.read.isolate import Decoder, Place, Reply
from groundglass.types import Float32


class Stopped(Exception):
    """The client has left, so the work stops."""


class Watch:
    """Steps of one piece of work, counted in the thread that does it."""

    def __init__(self) -> None:
        self.stage = "queued"
        self.done = self.total = 0
        self._stop = threading.Event()

    def stop(self) -> None:
        """Stop the work at its next step."""
        self._stop.set()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def enter(self, stage: str, total: int = 0) -> None:
        """A new stage with `total` steps, or 0 if nobody knows."""
        self.stage, self.done, self.total = stage, 0, total
        self.step(0)

    def step(self, count: int = 1) -> None:
        """Count steps. Raises Stopped after `stop`."""
        if self._stop.is_set():
            raise Stopped
        self.done += count


class WatchedDecoder(Decoder):
    """A decoder that counts its items for the work at hand."""

    watch: Watch | None = None

    def ask(self, operation: str, item: Mapping[str, Any], place: Place | None = None) -> Reply:
        reply = super().ask(operation, item, place)
        if self.watch is not None:
            self.watch.step()
        return reply


@dataclass(frozen=True, slots=True, kw_only=True)
class _WatchedNetwork(Network):
    """A network that counts the slices it is given."""

    watch: Watch = dataclasses.field(kw_only=True)

    def run(self, batch: Float32) -> dict[str, Float32]:
        outputs = Network.run(self, batch)
        self.watch.step(len(batch))
        return outputs


def watched(model: Model, watch: Watch) -> Model:
    """The same model; each slice that it sees is a step."""

    def of(network: Network) -> _WatchedNetwork:
        values = {f.name: getattr(network, f.name) for f in dataclasses.fields(network)}
        return _WatchedNetwork(**values, watch=watch)

    return dataclasses.replace(model, classifier=of(model.classifier), field=of(model.field))
