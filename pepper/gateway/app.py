"""The gateway's routes: those of the Open Inference Protocol, and ``/metrics``."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import pepper
from pepper.execution.queues import Keys
from pepper.execution.standing_files import GatewayFile
from pepper.gateway.flow import Full, GatewayFlow, Late, Lost
from pepper.gateway.inference import JSON_BYTES, InferRequest, UnfitRequest, answer, described, most_bytes
from pepper.gateway.observing import GatewayMetrics

_VERSION = "1"
_QUICK_JSON_BYTES = 2**14
"""What names tensors. More of it holds numbers: a thread, which is not preferred as the loop's is, reads and writes
these, so that no stage waits for that."""


class Gateway:
    """Takes requests for one model.

    Args:
        told: The gateway's file.
        keys: The pipeline's.

    Raises:
        ExecutionError: An address of the pipeline is taken.
    """

    def __init__(self, told: GatewayFile, keys: Keys) -> None:
        self._told, self._flow = told, GatewayFlow(told, keys)
        self._metrics = GatewayMetrics(told)
        self._most_bytes = most_bytes(told.inputs)
        self._taken = 0

    def app(self) -> Starlette:
        """Return the application."""
        of_model = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
        routes = [
            Route("/v2", self.server),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/metrics", self.metrics),
            *(Route(path, self.model) for path in of_model),
            *(Route(f"{path}/ready", self.model_ready) for path in of_model),
            *(Route(f"{path}/infer", self.infer, methods=["POST"]) for path in of_model),
        ]

        def refused(request: Request, error: Exception) -> Response:
            assert isinstance(error, HTTPException)
            return self._refusal(error.status_code, str(error.detail))

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            running = asyncio.create_task(self._flow.run())
            yield
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

        return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: refused})

    async def server(self, request: Request) -> Response:
        """Say what serves here."""
        return JSONResponse({"name": "pepper", "version": pepper.__version__, "extensions": ["binary_tensor_data"]})

    async def live(self, request: Request) -> Response:
        """Say that the gateway lives."""
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        """Say whether requests come through all stages."""
        is_ready = self._flow.is_ready
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    async def model(self, request: Request) -> Response:
        """Say what the model takes and gives."""
        self._check_model(request)
        return JSONResponse(
            {
                "name": self._told.model,
                "versions": [_VERSION],
                "platform": "onnx_pepper",
                "inputs": [described(tensor) for tensor in self._told.inputs],
                "outputs": [described(tensor) for tensor in self._told.outputs],
            }
        )

    async def model_ready(self, request: Request) -> Response:
        """Say the same of the model."""
        self._check_model(request)
        is_ready = self._flow.is_ready
        return JSONResponse({"name": self._told.model, "ready": is_ready}, 200 if is_ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Show figures in Prometheus's format."""
        self._metrics.under_way.set(self._flow.under_way)
        self._metrics.ready.set(self._flow.is_ready)
        return Response(self._metrics.shown(), media_type=CONTENT_TYPE_LATEST)

    async def infer(self, request: Request) -> Response:
        """Answer with the model's outputs."""
        try:
            response = await self._inferred(request)
        except UnfitRequest as error:
            response = self._refusal(400, str(error))
        except Full as error:
            response = self._refusal(429, f"{error}; ask again later")
        except Late as error:
            response = self._refusal(504, f"{error}; ask again")
        except Lost as error:
            response = self._refusal(503, f"{error}; ask again")
        except HTTPException as error:
            response = self._refusal(error.status_code, str(error.detail))
        self._metrics.answers.labels(response.status_code).inc()
        return response

    async def _inferred(self, request: Request) -> Response:
        self._check_model(request)
        if self._flow.is_full or self._taken >= self._told.in_flight:
            raise Full("as many requests are under way as may be")
        self._taken += 1  # one that is still being sent takes memory, too
        try:
            return await self._answered(request)
        finally:
            self._taken -= 1

    async def _answered(self, request: Request) -> Response:
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "content-encoding: requests are taken as they are; send it without compression")
        try:
            async with asyncio.timeout(self._told.time_limit_s):
                body = await self._body(request)
        except TimeoutError as error:
            raise HTTPException(408, f"the request is not there within {self._told.time_limit_s:g} s") from error
        length = request.headers.get(JSON_BYTES)
        if length is not None and not (length.isascii() and length.isdigit() and len(length) < 20):
            raise UnfitRequest(f"{JSON_BYTES}: must be a number")
        json_bytes = None if length is None else int(length)
        told = body, json_bytes, self._told.inputs, self._told.outputs
        quick = json_bytes is not None and json_bytes <= _QUICK_JSON_BYTES
        asked = InferRequest(*told) if quick else await asyncio.to_thread(InferRequest, *told)
        began = time.perf_counter()
        message = await self._flow.infer(asked.tensors)
        self._metrics.note(message, time.perf_counter() - began)
        if message.error is not None:
            return self._refusal(500, message.error)
        try:
            given = self._told.model, asked, message.tensors
            quick = all(binary for _, binary in asked.outputs)
            pieces, json_bytes = answer(*given) if quick else await asyncio.to_thread(answer, *given)
        except ValueError as error:
            return self._refusal(500, str(error))
        if json_bytes is None:
            return Response(b"".join(pieces), media_type="application/json")
        headers = {JSON_BYTES: str(json_bytes)}
        return Response(b"".join(pieces), headers=headers, media_type="application/octet-stream")

    async def _body(self, request: Request) -> bytes:
        pieces, size = [], 0
        try:
            async for piece in request.stream():
                size += len(piece)
                if size > self._most_bytes:
                    raise HTTPException(413, f"the request has more than {self._most_bytes} bytes")
                pieces.append(piece)
        except ClientDisconnect as error:
            raise HTTPException(400, "the request ends before its end") from error
        return b"".join(pieces)

    def _check_model(self, request: Request) -> None:
        name, version = request.path_params["model"], request.path_params.get("version", _VERSION)
        if name != self._told.model:
            raise HTTPException(404, f"model {name!r:.80}: {self._told.model!r} is served here")
        if version != _VERSION:
            raise HTTPException(404, f"version {version!r:.20}: version {_VERSION} is served here")

    def _refusal(self, status: int, line: str) -> Response:
        headers = {"Retry-After": "1"} if status in (429, 503) else None
        content: dict[str, Any] = {"error": line}
        return JSONResponse(content, status, headers)
