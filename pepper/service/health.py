"""Is the service alive, is it ready, and what has it done?"""

import contextlib

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from pepper.errors import PepperError
from pepper.service.doors import Reader, Shared
from pepper.service.problems import Refused, responses

router = APIRouter()


class Health(BaseModel):
    """Alive or ready."""

    status: str = "ok"


@router.get("/healthz")
async def healthz() -> Health:
    """Say that the service is alive."""
    return Health()


@router.get("/readyz", responses={503: responses()[503]})
def readyz(shared: Shared) -> Health:
    """Say whether requests can be answered: the store is reachable, and jobs are taken."""
    if not shared.ready:
        raise Refused(503, "the service is starting or ending", "status", "ask again")
    shared.answers.champion()
    return Health()


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, **responses()})
def metrics(shared: Shared, who: Reader) -> Response:
    """Show counts in Prometheus's format."""
    counted = shared.metrics
    for state, count in shared.orders.store.counts().items():
        counted.jobs.labels(state).set(count)
    counted.predictions.set(shared.answers.predictions)
    counted.models.set(shared.shelf.count())
    with contextlib.suppress(PepperError):  # the store is away: what was known last is shown
        counted.champion.set(shared.answers.champion())
    return Response(generate_latest(counted.registry), media_type=CONTENT_TYPE_LATEST)
