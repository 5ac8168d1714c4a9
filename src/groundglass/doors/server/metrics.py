"""Counters for Prometheus. No label holds data of a patient or a client."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from groundglass.doors.server.outcome import Outcome
from groundglass.types import Prediction, Refusal

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """The counters of one service."""

    def __init__(self, depth: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._predictions = Counter(
            "groundglass_predictions", "Answers by label and kind of input.", ("label", "input"), registry=self.registry
        )
        self._errors = Counter(
            "groundglass_errors", "Inputs without an answer, by code.", ("kind",), registry=self.registry
        )
        self._requests = Counter(
            "groundglass_requests", "HTTP answers by route and status.", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "groundglass_inference_seconds",
            "Time of the networks for one scan.",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._info = Gauge(
            "groundglass_model_info", "The model that answers.", ("version", "sha256"), registry=self.registry
        )
        Gauge("groundglass_queue_depth", "Work reserved, queued or running.", registry=self.registry).set_function(
            depth
        )

    def model(self, version: str, sha256: str) -> None:
        """Name the loaded model."""
        self._info.labels(version, sha256).set(1)

    def outcome(self, outcome: Outcome) -> None:
        """Count one result."""
        if isinstance(outcome.result, Prediction):
            self._predictions.labels(outcome.result.label, outcome.kind).inc()
            self._seconds.observe(outcome.seconds)
        else:
            self.error(outcome.result.code)
            if isinstance(outcome.result, Refusal) and outcome.seconds:
                self._seconds.observe(outcome.seconds)

    def error(self, code: str) -> None:
        """Count one input without an answer."""
        self._errors.labels(code).inc()

    def request(self, route: str, status: int) -> None:
        """Count one HTTP answer; `route` is the template of its path."""
        self._requests.labels(route, str(status)).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
