"""The page at ``/``: files of pepper's own and the report's chart library; what they show comes from ``/v1``."""

import gzip
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Response

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).parent / "page"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


@router.get("/")
def page() -> Response:
    """Return the page."""
    return _own("index.html")


@router.get("/page.css")
def looks() -> Response:
    """Return its style."""
    return _own("page.css")


@router.get("/page.js")
def program() -> Response:
    """Return its program."""
    return _own("page.js")


@router.get("/charts.js")
def charts() -> Response:
    """Return the chart library, compressed: any browser unpacks it."""
    headers = {**_HEADERS, "Content-Encoding": "gzip", "Cache-Control": "max-age=3600"}
    return Response(_library(), headers=headers, media_type=_KINDS[".js"])


def _own(name: str) -> Response:
    return Response((_FOLDER / name).read_bytes(), headers=_HEADERS, media_type=_KINDS[Path(name).suffix])


@cache
def _library() -> bytes:
    from pepper.report.page import chart_library

    return gzip.compress(chart_library().encode(), 6, mtime=0)
