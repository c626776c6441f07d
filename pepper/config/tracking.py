"""Where runs are kept."""

from dataclasses import dataclass

from pepper.config.checks import MISSING, a_name, within


@dataclass
class TrackingConfig:
    """Where runs are kept.

    Attributes:
        uri: MLflow tracking URI.
        artifacts: Artifact location of a new experiment; None leaves it to the tracking server.
        experiment: MLflow experiment of profiling runs.
        folder: Local folder for results that wait to be logged and for caches.
        timeout_seconds: Longest wait for a tracking server's answer.
    """

    uri: str = MISSING
    experiment: str = MISSING
    folder: str = MISSING
    artifacts: str | None = None
    timeout_seconds: int = 10

    def __post_init__(self) -> None:
        a_name("tracking.experiment", self.experiment)
        within("tracking.timeout_seconds", self.timeout_seconds, 1)
