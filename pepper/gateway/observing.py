"""What the gateway says of itself to Prometheus: what was measured beside what the plan predicts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pepper.execution.message import Message
from pepper.execution.standing_files import GatewayFile

_NS = 1e9
_BUCKETS = tuple(base * 10**power for power in range(-4, 2) for base in (1, 2, 5))


class GatewayMetrics:
    """The gateway's figures.

    Args:
        told: The gateway's file.
    """

    def __init__(self, told: GatewayFile) -> None:
        self.registry = CollectorRegistry()
        self.answers = Counter(
            "pepper_gateway_answers_total", "Requests answered, by HTTP status.", ("status",), registry=self.registry
        )
        self.under_way = Gauge("pepper_gateway_under_way", "Requests in the pipeline.", registry=self.registry)
        self.ready = Gauge(
            "pepper_gateway_ready", "Whether something comes through all stages.", registry=self.registry
        )
        self._seconds = Histogram(
            "pepper_pipeline_seconds",
            "Time from a request's entry into the pipeline to its answer.",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        predicted = Gauge(
            "pepper_pipeline_predicted_seconds", "What the plan predicts of one request.", registry=self.registry
        )
        predicted.set(told.latency_s)
        labels = ("stage", "device")
        stages = Histogram(
            "pepper_stage_seconds", "Time of a stage's inference.", labels, buckets=_BUCKETS, registry=self.registry
        )
        predicted_stages = Gauge(
            "pepper_stage_predicted_seconds", "What the plan predicts of it.", labels, registry=self.registry
        )
        self._stages = {}
        for stage in told.stages:
            predicted_stages.labels(stage.number, stage.device).set(stage.time_s)
            self._stages[stage.number] = stages.labels(stage.number, stage.device)

    def note(self, message: Message, seconds: float) -> None:
        """Count an answer of the pipeline.

        Args:
            message: The answer.
            seconds: From its request to it.
        """
        if message.error is not None:
            return
        self._seconds.observe(seconds)
        for stamp in message.stamps[1:]:
            if stamp.stage in self._stages:
                self._stages[stamp.stage].observe((stamp.end - stamp.start) / _NS)

    def shown(self) -> bytes:
        """Return the figures in Prometheus's format."""
        return bytes(generate_latest(self.registry))
