"""What is wrong with a request, as RFC 9457 has it: problem details with the key and the fix."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pepper.errors import (
    ConfigError,
    DeviceError,
    LatencyError,
    MeasureError,
    ModelError,
    PepperError,
    PlacementError,
    TrackingError,
)

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """Problem details."""

    type: str = "about:blank"
    title: str = Field(description="The status in words", examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="What is wrong, in one line", examples=["job 12: there is none"])
    key: str | None = Field(default=None, description="What of the request, or of the configuration, it is about")
    fix: str | None = Field(default=None, description="What to do")


@dataclass
class Refused(Exception):  # noqa: N818 - an answer, and no fault of the service
    """A request is answered by a problem.

    Attributes:
        status: HTTP status.
        detail: What is wrong, in one line.
        key: What of the request it is about.
        fix: What to do.
        headers: Of the answer.
    """

    status: int
    detail: str
    key: str | None = None
    fix: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def problem(self) -> Problem:
        """Return it as problem details."""
        title = HTTPStatus(self.status).phrase
        return Problem(title=title, status=self.status, detail=self.detail, key=self.key, fix=self.fix)

    def response(self) -> Response:
        """Return it as an answer."""
        return Response(self.problem().model_dump_json(), self.status, dict(self.headers), MEDIA_TYPE)


_STATUS: tuple[tuple[type[PepperError], int], ...] = (
    (LatencyError, 409),  # the champion is none that this pepper can use
    (ConfigError, 422),
    (ModelError, 422),
    (PlacementError, 422),
    (TrackingError, 503),
    (DeviceError, 503),
    (MeasureError, 503),
)


def refusal_of(error: PepperError, hidden: Mapping[str, str] | None = None) -> Refused:
    """Turn one of pepper's errors, ``KEY=VALUE: REASON; FIX``, into a problem.

    Args:
        error: The error.
        hidden: What is shown in place of the service's own paths.
    """
    line = " ".join(str(error).split())
    for own, shown in (hidden or {}).items():
        line = line.replace(own, shown)
    return refusal_in(line, next((status for kind, status in _STATUS if isinstance(error, kind)), 500))


def refusal_in(line: str, status: int) -> Refused:
    """Return the problem that a line of pepper's speaks of."""
    said, _, fix = line.rpartition("; ")
    before, colon, _ = line.partition(": ")
    key = before.partition("=")[0] if colon and " " not in before.partition("=")[0] else None
    return Refused(status, line, key, fix if said else None)


def install(app: FastAPI) -> None:
    """Answer every error by problem details."""

    def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return error.response()

    def own(request: Request, error: Exception) -> Response:
        assert isinstance(error, PepperError)
        return refusal_of(error).response()

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
        return Refused(422, f"{key}: {first['msg']}", key, "see /docs for what is wanted").response()

    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = f"{request.method} {request.url.path}: {error.detail}"
        fix = "see /docs for what is served" if error.status_code in (404, 405) else None
        return Refused(error.status_code, detail, None, fix, error.headers or {}).response()

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(PepperError, own)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route says in the OpenAPI document of its problems."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted({400, 401, 403, 422, 503, *statuses})
    }


def document(value: Any) -> bytes:
    """Return a value as the JSON that ``output=json`` prints."""
    from pepper.console.output import plain

    return json.dumps(plain(value), allow_nan=False).encode()
