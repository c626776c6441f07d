"""The routes of jobs: ask for one, await it, take what it gives, cancel it."""

import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi import Path as InPath
from fastapi.responses import FileResponse

from pepper.config.serving import Scope
from pepper.service.doors import Asker, Measurer, Reader, Shared
from pepper.service.jobs import ENDED, Job, JobId, State
from pepper.service.orders import PARTS
from pepper.service.pictures import Picture, placement_pictures
from pepper.service.problems import Refused, responses
from pepper.service.requests import PlaceAsked, ProfileAsked, SplitAsked
from pepper.service.running import result_of
from pepper.service.tokens import Token

router = APIRouter(prefix="/v1")

OfJob = Annotated[JobId, InPath()]
Seconds = Annotated[float, Query(ge=0, le=60, description="Longest wait for the job's end")]
_ZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": {}}, "description": "A ZIP file"}}


@router.post("/place", status_code=202, responses=responses(404, 429))
def place(asked: PlaceAsked, shared: Shared, who: Asker, response: Response) -> Job:
    """Have a model placed on a fleet, as ``task=place`` does."""
    return _located(shared.orders.place(asked, who), response)


@router.post("/split", status_code=202, responses=responses(404, 429))
def split(asked: SplitAsked, shared: Shared, who: Asker, response: Response) -> Job:
    """Have a model split, and its parts proved, as ``task=split`` does."""
    return _located(shared.orders.split(asked, who), response)


@router.post("/profile", status_code=202, responses=responses(404, 429))
def profile(asked: ProfileAsked, shared: Shared, who: Measurer, response: Response) -> Job:
    """Have a model measured, as ``task=profile`` does."""
    return _located(shared.orders.profile(asked, who), response)


def _located(job: Job, response: Response) -> Job:
    response.headers["Location"] = f"/v1/jobs/{job.job}"
    return job


@router.get("/jobs", responses=responses())
def jobs(shared: Shared, who: Reader) -> list[Job]:
    """List the jobs, oldest first."""
    return shared.orders.store.all()


@router.get("/jobs/{job}", responses=responses(404, 410))
async def job(job: OfJob, shared: Shared, who: Reader, wait_seconds: Seconds = 0.0) -> Job:
    """Say how far a job is; with ``wait_seconds`` not before it has ended, if that is within them."""
    return await shared.orders.runner.ended(job, wait_seconds)


@router.delete("/jobs/{job}", responses=responses(404, 409, 410))
def cancel(job: OfJob, shared: Shared, who: Asker) -> Job:
    """Cancel a job that waits or runs."""
    found = shared.orders.store.get(job)
    _check_owner(found, who)
    if found.state in ENDED:
        raise Refused(409, f"job {job}: is {found.state} already", "job", "there is nothing to cancel")
    shared.orders.runner.cancel(job)
    return shared.orders.store.get(job)


def _check_owner(job: Job, who: Token) -> None:
    if job.owner != who.name and not who.allows(Scope.admin):
        fix = "use that token, or one with serve.scopes=[admin]"
        raise Refused(403, f"job {job.job}: was asked for with token {job.owner!r}", "Authorization", fix)


@router.get("/jobs/{job}/result", response_class=Response, responses=responses(404, 409, 410))
def result(job: OfJob, shared: Shared, who: Reader) -> Response:
    """Return what a job gave: the document that the task prints with ``output=json``."""
    store = shared.orders.store
    return Response(result_of(store.get(job), store.home(job)), media_type="application/json")


@router.get("/jobs/{job}/report", responses=responses(404, 409, 410))
def report(job: OfJob, shared: Shared, who: Reader) -> list[Picture]:
    """Return what the report shows of a placement: key figures, charts as Plotly draws them, and tables."""
    store = shared.orders.store
    return placement_pictures(store.get(job), store.home(job))


@router.get("/jobs/{job}/parts", response_class=FileResponse, responses={**_ZIP, **responses(404, 409, 410)})
def parts(job: OfJob, shared: Shared, who: Reader) -> FileResponse:
    """Return the parts of a split, or of a placement that was asked to split, and their manifest as a ZIP file."""
    return zipped(shared.orders.store.get(job), shared.orders.store.home(job), "parts", str)


def zipped(job: Job, home: Path, name: str, named: Callable[[str], str | None]) -> FileResponse:
    """Return files of a model's parts as a ZIP file.

    Args:
        job: The job.
        home: Its folder.
        name: How the archive is called.
        named: What a file is called in it; None leaves it out.

    Raises:
        Refused: It split nothing, or is not done.
    """
    if job.state != State.done or not (home / PARTS).is_dir():
        fix = f"ask again with GET /v1/jobs/{job.job}?wait_seconds=60" if job.state not in ENDED else "split the model"
        raise Refused(409, f"job {job.job}: is a {job.task} that is {job.state}, and gave no parts", "job", fix)
    archive = home / f"{name}.zip"
    if not archive.exists():
        draft = home / f".{uuid.uuid4().hex}"
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as written:  # weights do not compress
            for file in sorted((home / PARTS).iterdir()):
                if called := named(file.name):
                    written.write(file, called)
        draft.replace(archive)
    return FileResponse(archive, media_type="application/zip", filename=archive.name)
