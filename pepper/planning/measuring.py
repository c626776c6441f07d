"""A plan at work: what it is run on, and what is measured of it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pepper.config import PepperConfig
from pepper.console.progress import StepProgress
from pepper.console.tables import figure
from pepper.errors import ExecutionError
from pepper.execution.adapting import Adapter
from pepper.execution.conditions import ConditionMeter
from pepper.execution.layout import Layout, check_inputs
from pepper.execution.links import measure_hops
from pepper.execution.pipeline import Network
from pepper.execution.pool import StagePool
from pepper.execution.runner import Answer, Runner
from pepper.execution.trials import PAUSE_S, Sample, Trial, at_rate, one_at_a_time, saturated
from pepper.execution.watch import Watch
from pepper.graph.inputs import read_arrays
from pepper.graph.ir import Graph
from pepper.graph.running import random_inputs, run_whole
from pepper.graph.verify import telling
from pepper.placement.plan import Plan
from pepper.planning.foresight import Foresight
from pepper.planning.measured import Adapted, Kept, MeasuredPlan
from pepper.planning.planned import Planned
from pepper.planning.replanning import replanner
from pepper.planning.splitting import Splitter, samples_of_plan

_SAMPLES = 4
"""Different inputs, in turn: so that answers cannot be mixed up unseen."""
_USUAL_RATE = 0.7
"""Of the throughput: busy, but not overloaded."""


def samples_of(
    config: PepperConfig, graph: Graph, layout: Layout, plan: Plan, name: str
) -> tuple[list[Sample], dict[str, str]]:
    """Return the inputs to run on, with the whole model's outputs; and which of these tell nothing, with the reason.

    Where parts run in other precisions than the model's own, the inputs are those that the plan's error was measured
    on, and its limit is what is accepted.

    Args:
        config: The whole configuration.
        graph: The model.
        layout: Its parts.
        plan: The plan.
        name: How an error calls it.

    Raises:
        ExecutionError: The inputs that are given are not the model's.
        ModelError: onnxruntime cannot run the model.
    """
    seed, tolerance = config.execute.seed, config.execute.tolerance
    own = samples_of_plan(graph, plan, name)
    drawn: Sequence[Mapping[str, Any]]
    if config.execute.inputs is not None:
        drawn = [read_inputs(Path(config.execute.inputs))]
    elif own is not None:
        drawn = own[:_SAMPLES]
    else:
        drawn = [random_inputs(graph, seed + number) for number in range(_SAMPLES)]
    runs = []
    for inputs in drawn:
        try:
            check_inputs(layout.inputs, inputs)
        except ExecutionError as error:
            raise ExecutionError(f"execute.inputs={config.execute.inputs}: {error}") from error
        runs.append((dict(inputs), run_whole(graph, inputs)))
    if own is None or plan.accuracy is None:
        untold, limits = telling(graph, runs, tolerance)
    else:
        limit = plan.accuracy.max_error if tolerance is None else tolerance
        untold, limits = {}, dict.fromkeys(runs[0][1], limit)
    return [Sample(inputs, expected, limits) for inputs, expected in runs], untold


def read_inputs(file: Path) -> dict[str, Any]:
    """Return a request out of an ``.npz`` file.

    Raises:
        ExecutionError: It cannot be read.
    """
    try:
        return dict(read_arrays(file))
    except ValueError as error:
        raise ExecutionError(
            f"execute.inputs={file}: cannot be read ({error}); give an .npz file of arrays by input name"
        ) from error


def measure_plan(
    planned: Planned,
    splitter: Splitter,
    pool: StagePool,
    network: Network,
    layout: Layout,
    samples: Sequence[Sample],
    foresight: Foresight | None,
    progress: StepProgress,
    kept: Kept,
) -> MeasuredPlan:
    """Run a plan: one request at a time, as many as possible, at a rate, and, with foresight, under changing loads.

    Args:
        planned: The plan.
        splitter: Writes the parts of the next plan, where a device is lost.
        pool: The devices.
        network: Their links.
        layout: The plan's parts.
        samples: The requests.
        foresight: Chooses other plans as loads change; None runs no such stream.
        progress: Told of each step.
        kept: Gets the answers as they come.

    Raises:
        ExecutionError: No layout is left to go on with.
    """
    config = planned.config
    options = config.execute
    with Runner(
        pool,
        network,
        layout,
        time_limit_s=options.time_limit_seconds,
        replan=foresight.replan if foresight else replanner(planned, splitter),
        in_flight=options.trials.in_flight,
    ) as runner:
        kept.events = runner.events
        hops = measure_hops(runner)
        progress.advance("links", f"{len(hops)} hops measured")
        pool.load(running=True)
        one_at_a_time(runner, samples, 0.0, options.trials.min_requests // 4)  # warms the stages up
        length = (options.trials.seconds, options.trials.min_requests)
        meter = ConditionMeter(pool)
        single = one_at_a_time(runner, samples, *length, kept.answers["one at a time"], PAUSE_S)
        progress.advance("one request at a time", _mean(single))
        stream = saturated(runner, samples, *length, kept.answers["saturated"])
        progress.advance("as many as possible", f"{figure(stream.throughput_per_s)}/s")
        rate_per_s = options.trials.rate_per_s or _USUAL_RATE * stream.throughput_per_s
        seconds = max(options.trials.seconds, 5 / rate_per_s)
        arrivals = at_rate(runner, samples, seconds, rate_per_s, options.seed, answers=kept.answers["at a rate"])
        progress.advance(f"at {rate_per_s:.3g}/s", _mean(arrivals))
        usage = runner.usage()
        devices, events = runner.layout.devices, list(runner.events)
        conditions = meter.read(devices)
        faults = [fault for condition in conditions for fault in condition.faults(config.measure.limits)]
        adapted = None
        if foresight is not None:
            answers = kept.answers["watching the loads"]
            adapted = _adapting(config, runner, pool, foresight, samples, rate_per_s, answers)
            progress.advance("watching the loads", f"{len(adapted.moves)} moves")
    return MeasuredPlan(hops, single, stream, arrivals, rate_per_s, usage, devices, events, conditions, faults, adapted)


def _mean(trial: Trial) -> str:
    return f"{figure(float(np.mean(trial.latency_ms)))} ms"


def _adapting(
    config: PepperConfig,
    runner: Runner,
    pool: StagePool,
    foresight: Foresight,
    samples: Sequence[Sample],
    rate_per_s: float,
    answers: list[Answer],
) -> Adapted:
    """Run a stream at a rate, and move to another plan where the loads on the devices call for it."""
    options = config.execute
    watch = Watch(options.moves.margin, options.moves.patience_seconds)
    changes = {
        name: replace(pool.planned(name), percent=percent, name=f"cpu{percent:g}")
        for name, percent in options.moves.load_change.items()
    }
    seconds = max(options.moves.seconds, 5 / rate_per_s)
    before, started_ns = len(runner.events), time.monotonic_ns()
    with Adapter(runner, pool, foresight.foresee, watch, changes, options.moves.load_change_after_seconds) as adapter:
        trial = at_rate(runner, samples, seconds, rate_per_s, options.seed, adapter.attend, answers)
    return Adapted(trial, started_ns, adapter.moves, runner.events[before:])
