"""Plans of several models at work at one time: what their requests cost each other, measured."""

import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from pepper.config import ExecuteConfig, PepperConfig
from pepper.console.progress import StepProgress
from pepper.console.tables import figure
from pepper.errors import ExecutionError
from pepper.execution.conditions import ConditionMeter
from pepper.execution.layout import Layout
from pepper.execution.pipeline import Network
from pepper.execution.pool import StagePool
from pepper.execution.prompt import prompt_driver
from pepper.execution.runner import Runner
from pepper.execution.trials import PAUSE_S, Sample, Trial, at_rate, one_at_a_time
from pepper.graph.ir import Graph
from pepper.placement.plan import Plan
from pepper.planning.measured import Kept
from pepper.planning.measuring import samples_of
from pepper.planning.planned import Planned
from pepper.planning.splitting import Splitter

_LEAST_REQUESTS = 10
"""Of the rarest model, on average, while all run."""


@dataclass(frozen=True)
class Ready:
    """A model that can be run.

    Attributes:
        name: The model's.
        rate_per_s: Requests a second.
        plan: Its plan.
        graph: The whole model.
        layout: The plan's parts.
        samples: Its requests.
        untold: Outputs whose answers prove nothing, with the reason.
    """

    name: str
    rate_per_s: float
    plan: Plan
    graph: Graph
    layout: Layout
    samples: Sequence[Sample]
    untold: dict[str, str]


@dataclass(frozen=True)
class MeasuredModels:
    """What was measured of plans that share a fleet, by model.

    Attributes:
        alone: One request at a time, while no other model has any.
        together: All models at their rates.
        faults: What devices gave meanwhile that makes the figures INVALID.
    """

    alone: dict[str, Trial]
    together: dict[str, Trial]
    faults: list[str]

    @property
    def trials(self) -> list[Trial]:
        """All trials."""
        return [*self.alone.values(), *self.together.values()]

    @property
    def failures(self) -> list[str]:
        """Why requests failed."""
        return [reason for trial in self.trials for reason in trial.failures]

    @property
    def difference(self) -> float:
        """Largest difference to the whole models' outputs."""
        return max(trial.difference for trial in self.trials)

    @property
    def excess(self) -> float:
        """Largest multiple of what is accepted; answers are right up to 1."""
        return max(trial.excess for trial in self.trials)


def ready(config: PepperConfig, name: str, rate_per_s: float, plan: Plan, folder: Path) -> Ready:
    """Write a plan's parts, and run the whole model on the requests.

    Args:
        config: The configuration with this model.
        name: The model's.
        rate_per_s: Requests a second.
        plan: Its plan.
        folder: Where the parts go.

    Raises:
        ConfigError: This machine cannot give a device.
        ExecutionError: The inputs that are given are not the model's.
        ModelError: onnxruntime cannot run the model.
    """
    planned = Planned(config, plan, name)
    layout = Splitter(planned.graph, folder / name).planned(plan, name)
    samples, untold = samples_of(config, planned.graph, layout, plan, name)
    return Ready(name, rate_per_s, plan, planned.graph, layout, samples, untold)


def measure_together(
    config: PepperConfig, models: Sequence[Ready], folder: Path, progress: StepProgress, kept: dict[str, Kept]
) -> MeasuredModels:
    """Run each model alone, one request at a time, and then all of them at their rates.

    Args:
        config: The whole configuration.
        models: The models; their plans have one fleet.
        folder: An empty folder for the queues.
        progress: Told of a step for each model, and of one for all.
        kept: By model, gets the answers as they come.

    Raises:
        ExecutionError: A stage was lost.
    """
    options = config.execute
    with ExitStack() as stack:
        fleet = models[0].plan.fleet
        network = stack.enter_context(closing(Network(fleet, folder, options.transport.queue, options.transport.port)))
        pool = stack.enter_context(StagePool(fleet, config.measure.session, options.time_limit_seconds, together=True))
        runners = [
            stack.enter_context(
                Runner(
                    pool,
                    network,
                    model.layout,
                    time_limit_s=options.time_limit_seconds,
                    in_flight=options.trials.in_flight,
                )
            )
            for model in models
        ]
        pool.load(running=True)
        meter, alone = ConditionMeter(pool), {}
        for model, runner in zip(models, runners, strict=True):
            one_at_a_time(runner, model.samples, 0.0, options.trials.min_requests // 4)  # warms the stages up
            answers = kept[model.name].answers["one at a time"]
            length = (options.trials.seconds, options.trials.min_requests)
            alone[model.name] = one_at_a_time(runner, model.samples, *length, answers, PAUSE_S)
            progress.advance(model.name, f"{figure(float(alone[model.name].latency_ms.mean()))} ms alone")
        together = _at_rates(options, models, runners, kept)
        progress.advance("all at their rates")
        conditions = meter.read({part.device for model in models for part in model.plan.parts})
    faults = [fault for condition in conditions for fault in condition.faults(config.measure.limits)]
    return MeasuredModels(alone, together, faults)


def _at_rates(
    options: ExecuteConfig, models: Sequence[Ready], runners: Sequence[Runner], kept: dict[str, Kept]
) -> dict[str, Trial]:
    """Run all models at one time, each from a thread of its own.

    Raises:
        ExecutionError: A stage was lost; then all end.
    """
    ended = threading.Event()
    seconds = max(options.trials.seconds, *(_LEAST_REQUESTS / model.rate_per_s for model in models))

    def go_on() -> None:
        if ended.is_set():
            raise ExecutionError("another model's run ended early")

    def run(number: int) -> Trial:
        model = models[number]
        answers, seed = kept[model.name].answers["all at their rates"], options.seed + number
        with prompt_driver():
            return at_rate(runners[number], model.samples, seconds, model.rate_per_s, seed, go_on, answers)

    with ThreadPoolExecutor(len(models)) as threads:
        running = [threads.submit(run, number) for number in range(len(models))]
        try:
            done, _ = wait(running, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        finally:
            ended.set()
        return {model.name: future.result() for model, future in zip(models, running, strict=True)}
