"""The application: its routes, and what answers where none does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

import pepper
from pepper.config.composing import Composition
from pepper.service import front, health, job_routes, paper, problems, v1
from pepper.service.answers import Answers
from pepper.service.doors import House
from pepper.service.fleet_metrics import FleetMetrics
from pepper.service.jobs import JobStore
from pepper.service.observing import Metrics, Observer
from pepper.service.orders import Orders
from pepper.service.running import JobRunner
from pepper.service.shelf import Shelf
from pepper.service.tokens import Tokens

MODELS, JOBS = "models", "jobs"


def make_app(composition: Composition, flags: tuple[str, ...] = ()) -> FastAPI:
    """Return the application.

    Args:
        composition: The service's configuration, and what options are composed from.
        flags: What stands before the overrides of a command line that composes the same options: a
            ``--config-dir=FOLDER`` for each folder of the user's own.
    """
    config = composition.config.serve
    folder = Path(config.folder)
    shelf = Shelf(folder / MODELS, config)
    answers = Answers(composition, shelf, [Path(flag.partition("=")[2]) for flag in flags])
    store = JobStore(folder / JOBS, config.queue, config.keep_hours * 3600)
    runner = JobRunner(store, config.job_seconds)
    metrics = Metrics()
    metrics.registry.register(FleetMetrics(answers.hosts))
    shared = House(config, Tokens(folder), shelf, answers, Orders(answers, shelf, store, runner, flags), metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        runner.start()
        shared.ready = True
        yield
        shared.ready = False
        await runner.close()
        store.close()

    app = FastAPI(
        title="pepper",
        version=pepper.__version__,
        description="Where ONNX models can be cut, how long they take, and where their parts run best.",
        lifespan=lifespan,
        redoc_url=None,
    )
    app.state.house = shared
    problems.install(app)
    for router in (front.router, health.router, v1.router, job_routes.router, paper.router):
        app.include_router(router)
    app.add_middleware(Observer, metrics=metrics, most_file_bytes=config.max_model_bytes)
    return app
