"""The routes of PEPPER (IOT '25, doi 10.1145/3770501.3770528), so that its clients work unchanged."""

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Path, UploadFile
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from pepper.config.cutting import CutKind
from pepper.graph.characteristics import FEATURES, PAPER_FEATURES
from pepper.graph.manifest import MANIFEST
from pepper.latency.features import Values
from pepper.service.answers import Answers
from pepper.service.doors import Asker, Reader, Shared
from pepper.service.job_routes import zipped
from pepper.service.jobs import JobId, State
from pepper.service.problems import responses
from pepper.service.requests import Sizes, SplitAsked

router = APIRouter()

BRIDGE_DIST = 6
_CHUNK_BYTES = 2**20

Bytes = Annotated[float, Field(ge=0, le=1e15, description="In bytes")]
OfJob = Annotated[JobId, Path()]


class PaperCharacteristics(BaseModel):
    """The five characteristics."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    conv_layers: float = Field(ge=0, le=1e15)
    filter_details: float = Field(ge=0, le=1e15)
    pool_layers: float = Field(ge=0, le=1e15)
    fully_conn_layers: float = Field(ge=0, le=1e15)
    total_parameters: float = Field(ge=0, le=1e15)


class ProfilingAsked(PaperCharacteristics):
    """The five characteristics and the sizes of a model that is not sent."""

    model_input_size: Bytes
    model_output_size: Bytes
    model: str | None = Field(default=None, max_length=200, description="How the answer calls it")


class FastestNode(BaseModel):
    """The node that is predicted to be fastest."""

    model_config = ConfigDict(populate_by_name=True)

    number: int = Field(alias="class", description="The node's number among those of the fleet, from 0")
    device_model: str = Field(description="Its processor")
    model: str
    node: str
    node_uuid: str
    predicted_execution_time: float = Field(description="Median, in milliseconds")


class FastestSaid(BaseModel):
    """What a model is, and where it runs fastest."""

    message: str
    status: str = "success"
    model_characteristics: PaperCharacteristics
    profiling_prediction: FastestNode


class Uploaded(FastestSaid):
    """The same of a model that is kept."""

    filepath: str = Field(description="How it is kept, by its hash")


class JobTaken(BaseModel):
    """A job that was taken."""

    job_id: JobId
    status: State


@router.post("/upload", status_code=201, responses=responses(409, 413, 507))
async def upload(
    file: Annotated[UploadFile, File()],
    model_input_size: Annotated[Bytes, Form()],
    model_output_size: Annotated[Bytes, Form()],
    shared: Shared,
    who: Asker,
) -> Uploaded:
    """Keep a model, and say what it is and which node is predicted to run it fastest."""
    from starlette.concurrency import run_in_threadpool

    kept, _ = await shared.shelf.keep(_chunks(file))
    sizes = (model_input_size, model_output_size)
    part, best = await run_in_threadpool(_look, shared.answers, kept.model, sizes)
    return Uploaded(
        message="the model is kept",
        filepath=f"models/{kept.model}.onnx",
        model_characteristics=_of_paper(part),
        profiling_prediction=_node(shared.answers, kept.model, *best),
    )


@router.post("/api/profiling", responses=responses(409))
def profiling(asked: ProfilingAsked, shared: Shared, who: Asker) -> FastestSaid:
    """Say which node is predicted to run a model fastest, of which only the five characteristics are known."""
    part = _sized(_row(asked.model_dump()), (asked.model_input_size, asked.model_output_size))
    best = shared.answers.fastest_of_paper(part)
    return FastestSaid(
        message="the fastest node",
        model_characteristics=_of_paper(part),
        profiling_prediction=_node(shared.answers, asked.model or "unknown", *best),
    )


@router.post("/jobs/upload", status_code=202, responses=responses(413, 429, 507))
async def split(
    model: Annotated[UploadFile, File()],
    shared: Shared,
    who: Asker,
    bridge_dist: Annotated[int, Form(ge=1, le=2**31 - 1)] = BRIDGE_DIST,
) -> JobTaken:
    """Keep a model and have it split at all bridges that are at least so many operators apart."""
    from starlette.concurrency import run_in_threadpool

    kept, _ = await shared.shelf.keep(_chunks(model))
    asked = SplitAsked(model=kept.model, kind=CutKind.bridges, bridge_dist=bridge_dist, every=True)
    job = await run_in_threadpool(shared.orders.split, asked, who)
    return JobTaken(job_id=job.job, status=job.state)


@router.get("/jobs/{job}/status", responses=responses(404, 410))
def status(job: OfJob, shared: Shared, who: Reader) -> JobTaken:
    """Say how far a job is."""
    found = shared.orders.store.get(job)
    return JobTaken(job_id=job, status=State.error if found.state == State.cancelled else found.state)


@router.post("/jobs/{job}/submodels", response_class=FileResponse, responses=responses(404, 409, 410))
def submodels(job: OfJob, shared: Shared, who: Reader) -> FileResponse:
    """Return the parts as a ZIP file of ``model_partN.onnx``, N from 1."""
    store = shared.orders.store
    return zipped(store.get(job), store.home(job), "submodels", _paper_name)


def _paper_name(file: str) -> str | None:
    """Name a part as the paper does; what holds weights keeps its name, by which the part knows it."""
    if file == MANIFEST:
        return None
    number = re.fullmatch(r"part_0*(\d+)\.onnx", file)
    return f"model_part{number[1]}.onnx" if number else file


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(_CHUNK_BYTES):
        yield chunk


def _look(answers: Answers, model: str, sizes: tuple[float, float]) -> tuple[Values, tuple[int, float]]:
    part = _sized(answers.part(model, Sizes())[0], sizes)
    return part, answers.fastest(part)


def _row(values: dict[str, Any]) -> Values:
    import numpy as np

    return np.array([[float(values.get(name, np.nan)) if name in PAPER_FEATURES else np.nan for name in FEATURES]])


def _sized(part: Values, sizes: tuple[float, float]) -> Values:
    """Put the sizes that the client states in the place of the model's own."""
    sized = part.copy()
    sized[0, [FEATURES.index("input_bytes"), FEATURES.index("output_bytes")]] = sizes
    return sized


def _of_paper(part: Values) -> PaperCharacteristics:
    return PaperCharacteristics(**{name: float(part[0, FEATURES.index(name)]) for name in PAPER_FEATURES})


def _node(answers: Answers, model: str, number: int, milliseconds: float) -> FastestNode:
    node = answers.nodes()[number]
    return FastestNode.model_validate(
        {
            "class": number,
            "device_model": node.processor,
            "model": model,
            "node": node.name,
            "node_uuid": node.identifier,
            "predicted_execution_time": milliseconds,
        }
    )
