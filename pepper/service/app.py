"""The application: its routes, and what answers where none does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

import pepper
from pepper.config.composing import Composition
from pepper.service import health, problems, v1
from pepper.service.answers import Answers
from pepper.service.doors import House
from pepper.service.observing import Metrics, Observer
from pepper.service.shelf import Shelf
from pepper.service.tokens import Tokens

MODELS = "models"


def make_app(composition: Composition) -> FastAPI:
    """Return the application.

    Args:
        composition: The service's configuration, and what options are composed from.
    """
    config = composition.config.serve
    folder = Path(config.folder)
    shelf = Shelf(folder / MODELS, config)
    shared = House(config, Tokens(folder), shelf, Answers(composition, shelf), Metrics())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        shared.ready = True
        yield
        shared.ready = False

    app = FastAPI(
        title="pepper",
        version=pepper.__version__,
        description="Where ONNX models can be cut, how long they take, and where their parts run best.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.house = shared
    problems.install(app)
    for router in (health.router, v1.router):
        app.include_router(router)
    app.add_middleware(Observer, metrics=shared.metrics, most_file_bytes=config.max_model_bytes)
    return app
