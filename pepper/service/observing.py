"""One line of log and some counts a request, and limits on what a request brings."""

import json
import sys
import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pepper.service.problems import Refused

MOST_JSON_BYTES = 2**20
FORM_BYTES = 2**16
"""What a form may hold besides its file."""


class Metrics:
    """What ``/metrics`` shows, in Prometheus's format."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter("pepper_requests_total", "Requests answered.", labels, registry=self.registry)
        self.seconds = Histogram(
            "pepper_request_seconds", "Time from a request to its answer.", ("route",), registry=self.registry
        )
        self.predictions = Gauge("pepper_predictions", "Cells predicted since the start.", registry=self.registry)
        self.jobs = Gauge("pepper_jobs", "Jobs kept, by state.", ("state",), registry=self.registry)
        self.models = Gauge("pepper_models", "Models kept.", registry=self.registry)
        self.champion = Gauge("pepper_champion_version", "The champion's version, 0 if none.", registry=self.registry)


class Observer:
    """ASGI middleware around the whole application.

    Args:
        app: The application.
        metrics: Where requests are counted.
        most_file_bytes: Largest file that a request may bring.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, most_file_bytes: int) -> None:
        self._app, self._metrics, self._most_file_bytes = app, metrics, most_file_bytes
        self._log = sys.stderr

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, count and log one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = dict(scope["headers"])
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        files = kind in (b"application/octet-stream", b"multipart/form-data")
        most = self._most_file_bytes + FORM_BYTES if files else MOST_JSON_BYTES
        try:
            length = headers.get(b"content-length", b"0")
            if length.isdigit() and int(length) > most:
                await too_large(most).response()(scope, receive, sending)
            else:
                await self._app(scope, _limited(receive, most), sending)
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.requests.labels(scope["method"], route, status).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "method": scope["method"],
            "path": scope["path"],
            "status": status,
            "ms": round(1000 * seconds, 2),
            "token": scope.get("state", {}).get("token"),
        }
        print(json.dumps(line), file=self._log, flush=True)


def too_large(most: int) -> Refused:
    """Return the answer to a request that brings too much."""
    return Refused(
        413,
        f"the request has more than {most} bytes",
        "serve.max_model_bytes",
        "send less, or have serve.max_model_bytes raised",
    )


def _limited(receive: Receive, most: int) -> Receive:
    """Refuse the rest of a body that is larger than it may be, whatever length it was said to have."""
    size = 0

    async def receiving() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            raise HTTPException(413, too_large(most).detail)
        return message

    return receiving
