"""How true are predictions of plans, and how good the chosen plans, when they are run?

A case is a real model on the default fleet (camera, edge box and server emulated on this machine), a link between
all three, and a load pattern. pepper decides on the predictions of a latency model that was trained on the store's
rows without the case's model (--champion: the store's champion, which may know it). Then plans are run as
task=execute does, on random inputs; a case counts only if every answer equals the whole model's.

Run are the chosen plans for latency and for throughput, those that the rule "do not split within the noise"
passed over, the paper's rule (each of the balanced parts to its own fastest device), no split on each device, and one
cut at each of --borders balanced borders between each two devices. A rival whose predicted value is more than
--prune times the chosen plan's is not run: it could be the best only if predictions were off by that factor. Of the
others, one is given up after its first two requests if the quicker one took --hopeless times the best latency so far
(of throughput: if a stage's quicker computation, or a link, took that many times the best time between two answers).
Each plan left is measured once, the chosen ones and those within --close of the best a second time, in reverse order;
both measurements are pooled. Latency: mean of single requests. Throughput: answers a second at saturation.
Regret: the plan's value over that of the best of all that were run. How much of the cores other programs took meanwhile
is measured, too.

Each finished case is appended to --out; the same command goes on from there, --table prints the tables only.

With --hosts the edge box and the server are hosts in network namespaces, which have joined a head here. Tensors go over
TCP, from host to host, too; the kernel (tc-tbf) holds each link to the bandwidth of the link's option, without its
latency, and predictions take what link=measured finds. The camera only sends, and takes the answers: it is this
machine, and there are two cores at least, one a host. Needs root and iproute2.

    python -m benchmarks.prediction_vs_execution --folder mlruns --out results.jsonl
    python -m benchmarks.prediction_vs_execution --hosts --out on_hosts.jsonl
"""

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import composition
from benchmarks.grounds import EXCLUDED, Ground, ground_of
from benchmarks.prediction_vs_execution_tables import CHOSEN, print_tables
from benchmarks.predictors import Predictors, real_models
from pepper.config.composing import Composition
from pepper.errors import ExecutionError
from pepper.execution.layout import Layout
from pepper.execution.loads import LoadMeter
from pepper.execution.pipeline import Network
from pepper.execution.pool import StagePool
from pepper.execution.runner import Runner
from pepper.execution.trials import PAUSE_S, Sample, Trial, one_at_a_time, saturated, steps
from pepper.graph.balance import balanced_cuts
from pepper.graph.characteristics import Characteristics
from pepper.graph.cuts import cut_behind
from pepper.graph.model import find_model
from pepper.graph.running import random_inputs, run_whole
from pepper.graph.verify import telling
from pepper.latency.model import LatencyModel
from pepper.placement.baselines import each_fastest
from pepper.placement.decision import Spread, decide
from pepper.placement.evaluate import Evaluation, Stage, Stages, evaluate
from pepper.placement.objectives import LATENCY, objective_named
from pepper.placement.problem import ChainProblem, Links
from pepper.planning.fleets import assemble
from pepper.planning.forecast import Forecast
from pepper.planning.posing import chain_problem
from pepper.planning.splitting import Splitter

LINKS = ("lte", "wifi", "ethernet_1gbit")
PATTERNS = {
    "idle": {},
    "server busy": {"server": "cpu75"},
    "edge and camera busy": {"edge": "cpu75", "camera": "cpu75"},
}
"""Loads by device; the others are idle."""
HOSTS_LINKS = ("ethernet_100mbit",)
OUT = {False: "results.jsonl", True: "results_on_hosts.jsonl"}
OBJECTIVES = ("latency", "throughput")
OURS = (CHOSEN, "pepper, noise not regarded")
ROLES = (*OURS, "paper's rule", "best single device (predicted)")
SAMPLES = 3  # different inputs, in turn
LEAST_SINGLE, LEAST_STREAM = 5, 8  # answers of a trial
TIME_LIMIT_S = 120.0
NEVER = dict.fromkeys(OBJECTIVES, math.inf)  # is a plan given up
MOST_IDLE = 48  # stages kept: all plans of a model's cases


@dataclass(frozen=True)
class Options:
    """How long and how many; see ``--help``."""

    seconds: float
    borders: int
    prune: float
    close: float
    hopeless: float


@dataclass
class Run:
    """A plan, what is predicted of it, and what was measured so far.

    Attributes:
        stages: The plan.
        predicted: Its cost by the predictions.
        wanted: The objectives for which it is measured.
        latency_ms: Of each single request.
        rates: Answers a second of each saturated trial.
        compute_ms: Means of each stage of each single-request trial.
        transfer_ms: The same of each hop.
        difference: Largest difference to the whole model's outputs.
        excess: Largest multiple of what rounding explains.
    """

    stages: Stages
    predicted: Evaluation
    wanted: set[str] = field(default_factory=set)
    latency_ms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    compute_ms: list[tuple[float, ...]] = field(default_factory=list)
    transfer_ms: list[tuple[float, ...]] = field(default_factory=list)
    difference: float = 0.0
    excess: float = 0.0

    def value(self, objective: str) -> float:
        """Return what was measured: ms of a request, or ms between two answers."""
        return float(np.mean(self.latency_ms) if objective == "latency" else 1000 / np.mean(self.rates))

    def note(self, trial: Trial) -> None:
        """Keep what a trial says of correctness.

        Raises:
            ExecutionError: A request failed.
        """
        if trial.failures:
            raise ExecutionError(trial.failures[0])
        self.difference = max(self.difference, trial.difference)
        self.excess = max(self.excess, trial.excess)


class Model:
    """Runs the cases of one model: parts, and stages of devices, are kept between them.

    Args:
        name: The model's option.
        predictor: What predicts its parts.
        options: How it is measured.
        ground: Where it runs.
        folder: For parts and sockets.
    """

    def __init__(
        self, name: str, predictor: tuple[LatencyModel, Spread], options: Options, ground: Ground, folder: Path
    ) -> None:
        self._name, self._options, self._ground, self._folder = name, options, ground, folder
        self._latency_model, self._spread = predictor
        self._forecasts: dict[str, Forecast] = {}
        self._layouts: dict[tuple[int, ...], Layout] = {}
        graph = self._forecast(next(iter(PATTERNS))).graph
        self._splitter = Splitter(graph, folder / "parts")
        self._macs = np.diff(Characteristics(graph).cumulative_macs).tolist()
        drawn = [random_inputs(graph, seed) for seed in range(SAMPLES)]
        runs = [(inputs, run_whole(graph, inputs, 1)) for inputs in drawn]
        _, limits = telling(graph, runs, threads=1)
        self._samples = [Sample(inputs, expected, limits) for inputs, expected in runs]

    def pool(self) -> StagePool:
        """Return the stages of all cases, with the loads of all patterns at hand."""
        most = {device: load for loads in PATTERNS.values() for device, load in loads.items()}
        made = self._overridden("wifi", most)
        fleet = replace(assemble(made), links=())
        return StagePool(fleet, made.config.measure.session, TIME_LIMIT_S, MOST_IDLE)

    def run(self, link: str, pattern: str, pool: StagePool) -> dict[str, Any]:
        """Run a case, and return its line of the file."""
        options = self._options
        self._ground.lay(link)
        made = self._overridden(link, PATTERNS[pattern])
        fleet, forecast = assemble(made), self._forecast(pattern)
        names = list(fleet.devices)
        problem = replace(chain_problem(made.config, forecast), links=Links.pairs(names, fleet.between))
        runs, roles = self._plans(problem, forecast)
        pool.fleet = fleet
        pool.load(running=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as home, closing(Network(pool.fleet, Path(home))) as network:
            first, meter = self._layout(runs[0].stages, names, forecast), LoadMeter(pool)
            with Runner(pool, network, first, time_limit_s=TIME_LIMIT_S) as runner:
                for run in runs:
                    best = {objective: _best(runs, objective) for objective in OBJECTIVES}
                    named = any(run.stages in found.values() for found in roles.values())
                    layout = self._layout(run.stages, names, forecast)
                    self._measure(runner, run, layout, NEVER if named else best)
                for run in reversed(runs):
                    run.wanted = {
                        objective
                        for objective in run.wanted
                        if run.stages in [roles[objective][role] for role in OURS]
                        or run.value(objective) <= options.close * _best(runs, objective)
                    }
                    if run.wanted:
                        self._measure(runner, run, self._layout(run.stages, names, forecast), NEVER)
        return {
            "model": self._name,
            "link": link,
            "pattern": pattern,
            "foreign_percent": {name: load.foreign_percent for name, load in meter.read().items()},
            "correct": max(run.excess for run in runs) <= 1,
            "roles": {
                objective: {role: _index(runs, stages) for role, stages in found.items()}
                for objective, found in roles.items()
            },
            "plans": [_line(run, names, forecast.borders.positions) for run in runs],
        }

    def _measure(self, runner: Runner, run: Run, layout: Layout, best: dict[str, float]) -> None:
        """Measure a plan once more, in what is wanted of it; what has no hope against the best is wanted no more."""
        if runner.layout != layout:
            runner.move(layout)
        warm = one_at_a_time(runner, self._samples, 0.0, 2)  # memory is allocated, buffers are full
        run.note(warm)
        least = {"latency": float(warm.latency_ms.min()), "throughput": _least_period(run, warm)}
        run.wanted -= {name for name, value in least.items() if value > self._options.hopeless * best[name]}
        if "latency" in run.wanted:
            single = one_at_a_time(runner, self._samples, self._options.seconds, LEAST_SINGLE, longest_pause_s=PAUSE_S)
            run.note(single)
            run.latency_ms += single.latency_ms.tolist()
            found = single.steps(mean=True)
            run.compute_ms.append(found.compute)
            run.transfer_ms.append(found.transfer)
        if "throughput" in run.wanted:
            # Enough that the bottleneck never waits, few enough that the last ones do not take long.
            cost = run.predicted
            runner.in_flight = min(16, math.ceil(cost.latency_ms / cost.period_ms) + len(run.stages) + 2)
            stream = saturated(runner, self._samples, self._options.seconds, LEAST_STREAM)
            run.note(stream)
            run.rates.append(stream.throughput_per_s)

    def _plans(self, problem: ChainProblem, forecast: Forecast) -> tuple[list[Run], dict[str, dict[str, Stages]]]:
        """Return all plans to run, and by objective which of them plays which role."""
        inner = self._balanced(forecast)
        roles: dict[str, dict[str, Stages]] = {}
        runs: dict[Stages, Run] = {}
        for objective in OBJECTIVES:
            decision = decide(problem, objective_named(objective), self._spread)
            single = decision.single or decision.best.stages
            plans = (decision.chosen.stages, decision.best.stages, _papers_rule(problem, inner), single)
            roles[objective] = dict(zip(ROLES, plans, strict=True))
            for stages in plans:
                runs.setdefault(stages, Run(stages, evaluate(problem, stages))).wanted.add(objective)
        for objective, stages in itertools.product(OBJECTIVES, _rivals(problem, inner)):
            cost = evaluate(problem, stages)
            goal, chosen = objective_named(objective), runs[roles[objective][CHOSEN]].predicted
            if goal.value(cost) <= self._options.prune * goal.value(chosen):
                runs.setdefault(stages, Run(stages, cost)).wanted.add(objective)
        return list(runs.values()), roles

    def _balanced(self, forecast: Forecast) -> list[int]:
        """Return the numbers of the borders that part the model into equal work."""
        positions = forecast.borders.positions
        cuts = [cut_behind(forecast.graph, position) for position in positions[1:-1]]
        count = min(self._options.borders, len(cuts))
        chosen = balanced_cuts(forecast.graph, cuts, count + 1, self._macs)
        return [positions.index(cut.position) for cut in chosen]

    def _layout(self, stages: Stages, names: Sequence[str], forecast: Forecast) -> Layout:
        positions = tuple(forecast.borders.positions[stage.start] for stage in stages[1:])
        devices = [names[stage.device] for stage in stages]
        if positions not in self._layouts:
            cuts = [cut_behind(forecast.graph, position) for position in positions]
            self._layouts[positions] = self._splitter.layout(cuts, devices)
        layout = self._layouts[positions]
        parts = (replace(part, device=device) for part, device in zip(layout.parts, devices, strict=True))
        return replace(layout, parts=tuple(parts))

    def _forecast(self, pattern: str) -> Forecast:
        if pattern not in self._forecasts:
            made = self._overridden("wifi", PATTERNS[pattern])
            model = find_model(made.config.model)
            found = Forecast(made.config, model, model.graph(), assemble(made), self._latency_model)
            self._forecasts[pattern] = found
        return self._forecasts[pattern]

    def _overridden(self, link: str, loads: dict[str, str]) -> Composition:
        overrides = [f"model={self._name}", f"link={self._ground.link(link)}", *self._ground.overrides]
        overrides += [f"fleet.devices.{device}.load={load}" for device, load in loads.items()]
        return composition(*overrides)


def _papers_rule(problem: ChainProblem, inner: Sequence[int]) -> Stages:
    """Give each part between these borders to the device where it alone is fastest."""
    ends = [0, *inner, problem.n_steps]
    coarse = replace(
        problem,
        part_ms=problem.part_ms[np.ix_(ends, ends)],
        part_bytes=problem.part_bytes[np.ix_(ends, ends)],
        moved_ms=problem.moved_ms[np.ix_(ends, ends)],
        boundary_bytes=problem.boundary_bytes[ends],
        handling_ms=problem.handling_ms[ends],
        labels=(),
    )
    stages = each_fastest(coarse, LATENCY)
    assert stages is not None
    return tuple(Stage(ends[stage.start], ends[stage.stop], stage.device) for stage in stages)


def _rivals(problem: ChainProblem, inner: Sequence[int]) -> Iterator[Stages]:
    """Yield no split on each device, and one cut at each border between each two devices."""
    n = problem.n_steps
    devices = [index for index, device in enumerate(problem.devices) if device.name not in problem.excluded]
    for device in devices:
        yield (Stage(0, n, device),)
    for border, (first, second) in itertools.product(inner, itertools.permutations(devices, 2)):
        yield (Stage(0, border, first), Stage(border, n, second))


def _least_period(run: Run, trial: Trial) -> float:
    """Return a time between two answers that the plan can hardly stay below, ms."""
    computed = np.min([steps(answer).compute for answer in trial.answers], axis=0)
    return max(*map(float, computed), *(hop.occupied_ms for hop in run.predicted.hops if hop is not None), 0.0)


def _best(runs: Sequence[Run], objective: str) -> float:
    """Return the best value measured so far, ms."""
    return min((run.value(objective) for run in runs if _was_measured(run, objective)), default=math.inf)


def _was_measured(run: Run, objective: str) -> bool:
    return bool(run.latency_ms if objective == "latency" else run.rates)


def _index(runs: Sequence[Run], stages: Stages) -> int:
    return next(index for index, run in enumerate(runs) if run.stages == stages)


def _line(run: Run, names: Sequence[str], positions: Sequence[int]) -> dict[str, Any]:
    """Return a plan's part of the file; times in ms."""
    line: dict[str, Any] = {
        "parts": [[positions[stage.start], positions[stage.stop], names[stage.device]] for stage in run.stages],
        "predicted": {
            "latency": run.predicted.latency_ms,
            "throughput": run.predicted.period_ms,
            "stages": run.predicted.stage_ms,
            "hops": [  # with the receiver's pickup: what is received waits for its turn, and is handled there
                (hop.time_ms if hop else 0.0) + pickup_ms
                for hop, pickup_ms in zip(run.predicted.hops, (*run.predicted.pickup_ms, 0.0), strict=True)
            ],
        },
        "measured": {objective: run.value(objective) for objective in OBJECTIVES if _was_measured(run, objective)},
        "requests": len(run.latency_ms),
        "difference": run.difference,
    }
    if run.compute_ms:
        line["measured"]["stages"] = np.mean(run.compute_ms, axis=0).tolist()
        line["measured"]["hops"] = np.mean(run.transfer_ms, axis=0).tolist()
    return line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("mlruns"), help="the store's folder (default: mlruns)")
    parser.add_argument("--out", type=Path, help=f"a line for each case (default: {OUT[False]}; on hosts, {OUT[True]})")
    parser.add_argument("--models", nargs="+", default=real_models(), help="options of model")
    parser.add_argument("--hosts", action="store_true", help="run on hosts that joined, over TCP")
    links = [" ".join(usual) for usual in (LINKS, HOSTS_LINKS)]
    parser.add_argument("--links", nargs="+", help=f"options of link (default: {links[0]}; on hosts, {links[1]})")
    parser.add_argument("--patterns", nargs="+", choices=list(PATTERNS), help="default: all that there can be")
    parser.add_argument("--champion", action="store_true", help="predict with the store's champion")
    parser.add_argument("--table", action="store_true", help="run nothing, print the tables of --out")
    parser.add_argument("--seconds", type=float, default=0.8, help="of each trial (default: 0.8)")
    parser.add_argument("--borders", type=int, default=2, help="balanced borders (default: 2)")
    parser.add_argument("--prune", type=float, default=3.0, help="factor of the chosen plan's value (default: 3)")
    parser.add_argument("--close", type=float, default=1.15, help="of the best: measured again (default: 1.15)")
    parser.add_argument("--hopeless", type=float, default=1.3, help="of the best: given up (default: 1.3)")
    given = parser.parse_args()
    given.out = given.out or Path(OUT[given.hosts])
    possible = [name for name, loads in PATTERNS.items() if not (given.hosts and EXCLUDED in loads)]
    if unfit := [name for name in given.patterns or () if name not in possible]:
        parser.error(f"--patterns {unfit[0]!r}: on hosts the {EXCLUDED} only sends; give others")
    usual_links = HOSTS_LINKS if given.hosts else LINKS
    asked = list(itertools.product(given.models, given.links or usual_links, given.patterns or possible))
    done = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    finished = {(case["model"], case["link"], case["pattern"]) for case in done}
    left = [case for case in asked if case not in finished]
    failed = 0
    if left and not given.table:
        print(f"{len(left)} of {len(asked)} cases to run, to {given.out}", flush=True)
        predictors = Predictors(given.folder.absolute(), given.champion)
        options = Options(given.seconds, given.borders, given.prune, given.close, given.hopeless)
        started = time.monotonic()
        with ground_of(given.hosts) as ground:
            for model, cases in itertools.groupby(left, key=lambda case: case[0]):
                try:
                    for line in _run(model, list(cases), predictors, options, ground):
                        done.append(line)
                        with given.out.open("a") as stream:
                            stream.write(json.dumps(line) + "\n")
                        here, spent_s = len(done) - len(finished), time.monotonic() - started
                        more = f"{spent_s / 60:.1f} min, about {spent_s / here * (len(left) - here) / 60:.0f} to go"
                        print(f"{here}/{len(left)} {model} / {line['link']} / {line['pattern']} ({more})", flush=True)
                except ExecutionError as error:
                    failed = 1
                    print(f"{model}: {error}; the same command tries what is left again", file=sys.stderr, flush=True)
    print_tables([case for case in done if (case["model"], case["link"], case["pattern"]) in asked], OBJECTIVES, ROLES)
    return failed


def _run(
    model: str, cases: Sequence[tuple[str, str, str]], predictors: Predictors, options: Options, ground: Ground
) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="pepper-") as folder:
        runs = Model(model, predictors.of(model), options, ground, Path(folder))
        with runs.pool() as pool:
            for _, link, pattern in cases:
                yield runs.run(link, pattern, pool)


if __name__ == "__main__":
    sys.exit(main())
