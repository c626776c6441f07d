"""What the service serves, to whom, and within which limits."""

from dataclasses import dataclass, field
from enum import StrEnum

from pepper.config.checks import within
from pepper.errors import ConfigError

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Scope(StrEnum):
    """What a token's holder may do."""

    read = "read"
    predict = "predict"
    measure = "measure"
    admin = "admin"


@dataclass
class ServeConfig:
    """What ``task=serve`` serves, to whom, and within which limits.

    Attributes:
        host: Address to listen at.
        port: Port to listen at; 0 takes a free one.
        folder: Folder for models, jobs and the hashes of tokens.
        open: Whether requests need no token; on loopback only.
        token: Name of a new token, which is made and shown; nothing is served then.
        scopes: What the new token's holder may do: ``read``, ``predict`` (with uploads), ``measure``, ``admin`` (all).
        revoke: Name of a token that is no more valid; nothing is served then.
        max_model_bytes: Largest model that is taken.
        max_models: Most models that are kept.
        check_seconds: Longest time that the check of an uploaded model may take.
        check_memory_bytes: Most memory that this check may take.
        queue: Most jobs that wait; beyond, they are refused.
        job_seconds: Longest time that a job may take.
        keep_hours: How long a job's result is kept.
        in_flight: Most requests at a time.
    """

    host: str = "127.0.0.1"
    port: int = 8780
    folder: str = "mlruns/service"
    open: bool = False
    token: str | None = None
    scopes: list[Scope] = field(default_factory=lambda: [Scope.read, Scope.predict])
    revoke: str | None = None
    max_model_bytes: int = 2**29
    max_models: int = 1000
    check_seconds: float = 60.0
    check_memory_bytes: int = 2**32
    queue: int = 16
    job_seconds: float = 3600.0
    keep_hours: float = 72.0
    in_flight: int = 64

    def __post_init__(self) -> None:
        within("serve.port", self.port, 0, 65535)
        for key in ("max_model_bytes", "max_models", "queue", "in_flight"):
            within(f"serve.{key}", getattr(self, key), 1)
        for key in ("check_seconds", "job_seconds", "keep_hours"):
            within(f"serve.{key}", getattr(self, key), 0, above=True)
        within("serve.check_memory_bytes", self.check_memory_bytes, 2**29)
        for key in ("token", "revoke"):
            name = getattr(self, key)
            if name is not None and not (name.strip() and name.isprintable()):
                raise ConfigError(f"serve.{key}={name!r}: must be a name")
        if self.open and self.host not in LOOPBACK:
            raise ConfigError(
                f"serve.open=true: anybody who reaches serve.host={self.host} could use the service; drop it and make"
                " tokens with serve.token=NAME, or listen at 127.0.0.1"
            )
