"""The routes under ``/v1``: models, what they are, where they can be cut, how long they take."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from pepper.planning.predicting import ModelPrediction
from pepper.service.doors import Admin, Asker, Reader, Shared
from pepper.service.problems import Problem, Refused, document, responses
from pepper.service.requests import BatchAsked, CellAsked, CutsAsked, ModelId, Sizes
from pepper.service.shelf import KeptModel

router = APIRouter(prefix="/v1")

OfModel = Annotated[ModelId, Path()]
_FILE = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class CharacteristicsSaid(BaseModel):
    """What a model is."""

    model: ModelId
    operators: int
    characteristics: dict[str, float] = Field(examples=[{"macs": 3.9e9, "parameters": 2.5e7}])
    warnings: list[str]


class CutSaid(BaseModel):
    """A place to cut a model."""

    operators_before: int
    in_order: bool
    tensors: list[str]
    dtypes: list[str | None]
    shapes: list[list[int] | None]
    bytes: int | None


class CutsSaid(BaseModel):
    """Where a model can be cut."""

    model: ModelId
    operators: int
    cuts: list[CutSaid]


class Predicted(BaseModel):
    """What the champion says of a cell."""

    name: str
    p50_ms: float
    p95_ms: float | None
    low_ms: float | None
    high_ms: float | None
    registered_model: str
    version: int
    adapted_with: int
    noise: dict[str, Any] | None
    warnings: list[str]


class BatchPredicted(BaseModel):
    """An answer a cell, in their order: a prediction, or what is wrong with that cell."""

    predictions: list[Predicted | Problem]


class NodeSaid(BaseModel):
    """A device of the service's fleet."""

    name: str
    host: str
    processor: str
    identifier: str


class ChampionSaid(BaseModel):
    """The latency model that predicts."""

    registered_model: str
    champion: int | None


class HistorySaid(ChampionSaid):
    """Who was champion, when and why."""

    history: list[dict[str, Any]]


def said(value: Any, status: int = 200) -> Response:
    """Answer with a value as ``output=json`` prints it."""
    return Response(document(value), status, media_type="application/json")


@router.post(
    "/models",
    status_code=201,
    response_model=KeptModel,
    responses={200: {"model": KeptModel, "description": "It was there already"}, **responses(413, 507)},
    openapi_extra=_FILE,
)
async def upload(request: Request, shared: Shared, who: Asker) -> Response:
    """Keep a model: the body is its ONNX file, which is checked first. It is named by its content hash."""
    kept, new = await shared.shelf.keep(request.stream())
    return said(kept.model_dump(), 201 if new else 200)


@router.get("/models", responses=responses())
def models(shared: Shared, who: Reader) -> list[KeptModel]:
    """List the models that are kept."""
    return shared.shelf.all()


@router.get("/models/{model}", responses=responses(404))
def model(model: OfModel, shared: Shared, who: Reader) -> KeptModel:
    """Say what is known of a model."""
    return shared.shelf.known(model)


@router.delete("/models/{model}", status_code=204, responses=responses(404))
def delete(model: OfModel, shared: Shared, who: Admin) -> None:
    """Delete a model."""
    shared.shelf.delete(model)


@router.post("/models/{model}/characteristics", response_model=CharacteristicsSaid, responses=responses(404))
def characteristics(model: OfModel, asked: Sizes, shared: Shared, who: Reader) -> Response:
    """Say what a model is: operators, MACs, bytes and the like."""
    shared.shelf.file(model)
    return said(shared.answers.characteristics(model, asked))


@router.post("/models/{model}/cuts", response_model=CutsSaid, responses=responses(404))
def cuts(model: OfModel, asked: CutsAsked, shared: Shared, who: Reader) -> Response:
    """Say where a model can be cut, and what crosses there."""
    return said(shared.answers.cuts(model, asked))


@router.post("/predict", response_model=Predicted, responses=responses(404, 409))
def predict(asked: CellAsked, shared: Shared, who: Asker) -> Response:
    """Say how long a model takes on a device under a load, by the champion."""
    (answer,) = shared.answers.predict([asked])
    if isinstance(answer, Refused):
        raise answer
    return said(_predicted(answer))


@router.post("/predict/batch", response_model=BatchPredicted, responses=responses(409))
def predict_batch(asked: BatchAsked, shared: Shared, who: Asker) -> Response:
    """Say so of many cells at once; one that is refused does not spoil the others."""
    answers = shared.answers.predict(asked.cells)
    rows = [answer.problem().model_dump() if isinstance(answer, Refused) else _predicted(answer) for answer in answers]
    return said({"predictions": rows})


def _predicted(answer: ModelPrediction) -> dict[str, Any]:
    return {**vars(answer), "noise": asdict(answer.noise) if answer.noise else None}


@router.get("/fleet", responses=responses())
def fleet(shared: Shared, who: Reader) -> list[NodeSaid]:
    """List the devices of the service's fleet, and the hosts that they are on."""
    names = NodeSaid.model_fields
    return [NodeSaid(**{name: getattr(node, name) for name in names}) for node in shared.answers.nodes()]


@router.get("/options", responses=responses())
def options(shared: Shared, who: Reader) -> dict[str, list[str]]:
    """List the options of the configuration that requests may choose, by group; the user's own among them."""
    return shared.answers.options()


@router.get("/champion", response_model=ChampionSaid, responses=responses())
def champion(shared: Shared, who: Reader) -> Response:
    """Say which latency model predicts; null if none does yet."""
    return said(shared.answers.current())


@router.get("/champion/history", response_model=HistorySaid, responses=responses())
def champion_history(shared: Shared, who: Reader) -> Response:
    """Say who was champion, when and why."""
    return said(shared.answers.history())
