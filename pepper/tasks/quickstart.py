"""``task=quickstart``: from nothing to a plan that was run: sweep, train, promote, place, execute."""

import csv
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pepper.config import PepperConfig, typed
from pepper.errors import PepperError
from pepper.graph.model import find_model
from pepper.outputs import results_folder
from pepper.placement.evaluate import Evaluation, Stage, evaluate
from pepper.placement.plan import Plan
from pepper.report.output import results_under
from pepper.report.quickstart_table import RanLine, ran_table
from pepper.report.tables import show
from pepper.sweep.axes import Compose
from pepper.tasks.execute import execute
from pepper.tasks.execution_views import THE_PLAN
from pepper.tasks.fleet import assemble
from pepper.tasks.latency_models import chosen_version, load_version, open_registry
from pepper.tasks.other_plans import UNSPLIT
from pepper.tasks.place import place
from pepper.tasks.placement_problem import Forecast, chain_problem
from pepper.tasks.profile import profile
from pepper.tasks.promote import STATUS_NOT_BETTER, promote
from pepper.tasks.train import train

LEARNING = ("+sweep=quickstart", "measure=quick", "tuning=quick")
PLACING = ("model=resnet50", "link=ethernet_1gbit", "objective=throughput")
"""What is taken where the command line does not say; the model to place is none of the sweep's."""

Step = tuple[str, str, Callable[[], int], tuple[int, ...]]
"""Its name, what it does, how, and the exit statuses with which the next step follows."""


def quickstart(config: PepperConfig, overrides: Sequence[str], compose: Compose) -> int:
    """Go all the way, and say what was predicted, what was measured, and what it is worth.

    The model that the command line names is placed; the sweep keeps its own.

    Args:
        config: The whole configuration.
        overrides: The command line's overrides that made it.
        compose: Composes the configuration from overrides.

    Returns:
        The exit status.

    Raises:
        PepperError: A step fails; the message names it.
    """
    started = time.monotonic()
    learning = _with_defaults(LEARNING, [given for given in overrides if _key(given).split(".")[0] != "model"])
    placing = _with_defaults(PLACING, [given for given in overrides if _key(given).split(".")[0] != "sweep"])
    to_learn, to_place = typed(compose(learning)), typed(compose(placing))
    find_model(to_place.model)  # what is wrong is said before minutes are spent
    assemble(to_place, placing, compose)
    for key, given in (("place.out", to_place.place.out), ("execute.out", to_place.execute.out)):
        results_folder(key, given)
    with tempfile.TemporaryDirectory(prefix="pepper-") as scratch:
        folder = Path(scratch)
        out = Path(to_place.place.out or folder / "placed")
        ran = Path(to_place.execute.out or folder / "ran")
        placed = replace(to_place, place=replace(to_place.place, out=str(out)))
        run = replace(
            to_place,
            execute=replace(to_place.execute, plan=str(out / "plan.json"), compare=True, out=str(ran)),
        )
        assert to_learn.sweep is not None
        steps: tuple[Step, ...] = (
            (
                "sweep",
                f"measure what {to_learn.sweep.name} lists",
                lambda: profile(to_learn, learning, compose),
                (0,),
            ),
            ("train", "learn how long parts take", lambda: train(to_learn), (0,)),
            ("promote", "make that the champion", lambda: promote(to_learn), (0, STATUS_NOT_BETTER)),
            (
                "place",
                f"{to_place.model.name} on {to_place.fleet.name}, for {to_place.objective.name}",
                lambda: place(placed, placing, compose),
                (0,),
            ),
            ("execute", "run the plan, and no split on each device", lambda: execute(run), (0,)),
        )
        took = _take(steps, started)
        lines = _lines(Plan.load(out / "plan.json"), ran / "runs.csv", _unsplit(placed, placing, compose))
    show(ran_table(lines), plans=[asdict(line) for line in lines])
    show(_verdict(lines, to_place.objective.name == "throughput"))
    seconds = time.monotonic() - started
    show(f"{_clock(seconds)} in all: {', '.join(took)}; make ui shows the runs", seconds=seconds)
    return 0


def _take(steps: Sequence[Step], started: float) -> list[str]:
    """Take the steps, and return what each took."""
    took = []
    for number, (name, what, function, goes_on) in enumerate(steps, 1):
        begun = time.monotonic()
        show(f"[{number}/{len(steps)}] {name}: {what} ({_clock(begun - started)} so far)")
        try:
            with results_under(name):
                status = function()
        except PepperError as error:
            raise type(error)(f"quickstart stopped at step {number}, {name}: {error}") from error
        if status not in goes_on:
            raise PepperError(
                f"quickstart stopped at step {number}, {name}: exit status {status}, see above;"
                " the same command goes on with what is measured"
            )
        took.append(f"{name} {_clock(time.monotonic() - begun)}")
    return took


def _unsplit(config: PepperConfig, overrides: Sequence[str], compose: Compose) -> dict[str, Evaluation]:
    """Return what the champion predicts of the whole model on each device."""
    registry = open_registry(config)
    champion = load_version(registry, chosen_version(registry, config.latency.version))
    problem = chain_problem(config, Forecast(config, assemble(config, overrides, compose), champion))
    return {
        device.name: evaluate(problem, (Stage(0, problem.n_steps, index),))
        for index, device in enumerate(problem.devices)
    }


def _lines(plan: Plan, file: Path, unsplit: dict[str, Evaluation]) -> list[RanLine]:
    """Return all plans that were run, the given one first, with what was predicted of it and of what does not split."""
    with file.open(newline="") as stream:
        runs = list(csv.DictReader(stream))
    lines = []
    for run in runs:
        cost: Plan | Evaluation | None = plan if run["name"] == THE_PLAN else None
        if run["name"] == UNSPLIT:
            cost = unsplit[run["devices"].partition("#")[0]]  # of a kind of several, one is as good as another
        lines.append(
            RanLine(
                run["name"],
                run["devices"],
                float(run["latency_ms"]),
                float(run["per_second"]),
                None if cost is None else cost.latency_ms,
                None if cost is None else 1000 / cost.period_ms,
            )
        )
    return lines


def _verdict(lines: Sequence[RanLine], throughput: bool) -> str:
    """Say what the plan is worth against not splitting."""
    plan = lines[0]
    alone = [line for line in lines if line.name == UNSPLIT or " - " not in line.devices]
    if not alone:
        return "no device ran the whole model alone: what splitting is worth is not known"
    if throughput:
        best = max(alone, key=lambda line: line.measured_per_s)
        factor, what = plan.measured_per_s / best.measured_per_s, "as many answers a second"
    else:
        best = min(alone, key=lambda line: line.measured_ms)
        factor, what = best.measured_ms / plan.measured_ms, "as fast"
    if plan is best:
        return f"the plan does not split: {plan.devices} alone is best"
    return f"measured, the plan is {factor:.2f} times {what} as the best device alone ({best.devices})"


def _with_defaults(defaults: Sequence[str], given: Sequence[str]) -> list[str]:
    keys = {_key(override) for override in given}
    return [*(default for default in defaults if _key(default) not in keys), *given]


def _key(override: str) -> str:
    return override.lstrip("+~").split("=", 1)[0]


def _clock(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02d}"
