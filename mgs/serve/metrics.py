"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)  # images
LEVELS = tuple(level / 4 for level in range(1, 21))  # of MOS's 0-5
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters of one server; their registry is its own, so that several servers may live in a process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.images = Counter("mgs_images", "Images answered", ["checkpoint", "status"], registry=registry)
        self.scores = Histogram(
            "mgs_score", "Scores, on MOS's 0-5", ["checkpoint", "dimension"], buckets=LEVELS, registry=registry
        )
        self.batches = Histogram(
            "mgs_batch_images", "Images of a batch", ["checkpoint"], buckets=BATCHES, registry=registry
        )
        self.requests = Histogram(
            "mgs_request_seconds", "Time of a request", ["path", "status"], buckets=SECONDS, registry=registry
        )
        self.inside = Gauge("mgs_images_inside", "Images that are not answered yet", registry=registry)
        self.refused = Counter("mgs_refused", "Requests refused since too many images wait", registry=registry)

    def count_scores(self, checkpoint: str, scores: Iterable[tuple[str, float]]) -> None:
        """Count an image's scores; one without is counted as an error."""
        status = "error"
        for dimension, score in scores:
            self.scores.labels(checkpoint, dimension).observe(score)
            status = "ok"
        self.images.labels(checkpoint, status).inc()
