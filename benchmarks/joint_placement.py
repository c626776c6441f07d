"""What is gained by placing several models together, each knowing what the others take of the fleet?

Models are placed on the default fleet (camera, edge box and server emulated on this machine) at rates of a fixed
proportion, a given part of what the fleet can carry at most: together (`pepper.placement.joint_search`), and each by
itself, as if it had the fleet to itself. Both are costed by the formulas, simulated, and with --execute run: all models
at one time at their rates (Poisson), as task=place with place.execute=true runs them, in turn. What is compared is the
mean latency over all requests; above 1, placing each by itself is worse.

    python -m benchmarks.joint_placement --execute
"""

import argparse
import itertools
import math
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.common import composed, print_table
from pepper.config import PepperConfig
from pepper.config.composing import Composition, compose, compose_tree
from pepper.console.progress import StepProgress
from pepper.errors import PlacementError
from pepper.placement.chain import solve
from pepper.placement.evaluate import Stages
from pepper.placement.joint import JointCost, JointProblem
from pepper.placement.joint_search import Unsolved, solve_joint
from pepper.placement.plan import Plan
from pepper.placement.queueing import chain_works
from pepper.placement.shared_queueing import stream_latencies
from pepper.planning.joint_measuring import MeasuredModels, measure_together, ready
from pepper.planning.joint_placing import PlacedModels, find_joint_plan
from pepper.planning.measured import Kept

MODELS = ("squeezenet", "googlenet", "resnet50", "shufflenet", "densenet121", "inception_v2")
BEYOND = 1e4
"""Times the rates: more than any fleet carries."""


@dataclass(frozen=True)
class Case:
    """Models at rates, placed together and each by itself.

    Attributes:
        placed: What came of placing them together.
        simulated_ms: Mean over all requests: together, and each by itself.
    """

    placed: PlacedModels
    simulated_ms: tuple[float, float]

    @property
    def names(self) -> str:
        """The models."""
        return " ".join(model.name for model in self.placed.models)


def place(options: argparse.Namespace, models: Sequence[str], link: str, rates: Mapping[str, float]) -> PlacedModels:
    """Place models together at rates."""
    given = [f"place.rates.{name}={rate:.6g}" for name, rate in rates.items()]
    overrides = (
        f"place.models=[{','.join(models)}]",
        f"link={link}",
        f"place.max_cuts={options.max_cuts}",
        f"place.time_limit_seconds={options.time_limit}",
        f"tracking.folder={options.folder}",
        *given,
    )
    return find_joint_plan(Composition(compose(overrides), overrides, compose_tree))


def simulated_ms(problem: JointProblem, plans: Sequence[Stages], cost: JointCost) -> float:
    """Return the mean over all requests of a simulation; infinite where the plans cannot carry the rates."""
    if max(cost.busy.values()) >= 1:
        return math.inf
    works = [(chain_works(s.problem, p), s.rate_per_s) for s, p in zip(problem.streams, plans, strict=True)]
    means = [stream.mean_ms for stream in stream_latencies(works)]
    return float(np.dot(problem.weights, means))


def cases(options: argparse.Namespace, models: Sequence[str], link: str) -> list[Case]:
    """Return a case for each part of what the fleet carries."""
    rare = {name: 1e-3 * rate for name, rate in zip(models, options.rates, strict=True)}
    problem = place(options, models, link, rare).problem
    most = solve_joint(problem.scaled(BEYOND), options.time_limit)
    assert isinstance(most, Unsolved)
    found = []
    for part in options.busy:
        placed = place(options, models, link, {n: r * BEYOND * most.carried * part for n, r in rare.items()})
        own = [solve(stream.problem).stages for stream in placed.problem.streams]
        together = simulated_ms(placed.problem, placed.solution.plans, placed.solution.cost)
        found.append(Case(placed, (together, simulated_ms(placed.problem, own, placed.separate))))
    return found


def row(case: Case, link: str, part: float) -> list[str]:
    """Return a line of the simulated table."""
    solution, separate = case.placed.solution, case.placed.separate
    together, alone = case.simulated_ms
    ratio = separate.mean_ms / solution.cost.mean_ms
    return [
        case.names,
        link,
        f"{part:.0%}",
        f"{solution.cost.mean_ms:.1f}",
        f"{together:.1f}",
        f"{ratio:.2f}",
        f"{alone / together:.2f}",
        f"{solution.gap:.1%}",
        f"{max(separate.busy.values()):.0%}",
    ]


def run(config: PepperConfig, placed: PlacedModels, plans: Mapping[str, Plan]) -> MeasuredModels:
    """Run plans of all models at their rates."""
    with tempfile.TemporaryDirectory(prefix="pepper-") as scratch:
        folder = Path(scratch)
        for name in ("parts", "net"):
            (folder / name).mkdir()
        models = [
            ready(model.config, model.name, stream.rate_per_s, plans[model.name], folder / "parts")
            for model, stream in zip(placed.models, placed.problem.streams, strict=True)
        ]
        with StepProgress(len(models) + 1, silent=True) as progress:
            return measure_together(config, models, folder / "net", progress, defaultdict(Kept))


def execute(options: argparse.Namespace, case: Case) -> list[list[float]]:
    """Return by round the mean over all requests: of plans placed together, and each by itself."""
    config = composed(f"execute.trials.seconds={options.seconds}")
    placed = case.placed
    weights = np.array(placed.problem.weights)
    rounds = []
    for number in range(options.rounds):
        means: dict[str, float] = {}
        kinds = ("together", "own")
        for kind in kinds if number % 2 == 0 else kinds[::-1]:
            plans = {m.name: m.plan if kind == "together" else m.own_plan for m in placed.models}
            measured = run(config, placed, plans)
            assert measured.excess <= 1, "an answer differs"
            for fault in measured.faults:
                print(f"INVALID: {case.names}: {fault}", flush=True)
            each = np.array([measured.together[model.name].latency_ms.mean() for model in placed.models])
            means[kind] = float(weights @ each)
        rounds.append([means[kind] for kind in kinds])
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="mlruns", help="the store whose champion predicts")
    parser.add_argument(
        "--models", nargs="+", default=["squeezenet", "googlenet", "resnet50"], help="those that are run"
    )
    parser.add_argument("--rates", nargs="+", type=float, default=[6.0, 3.0, 1.0], help="their proportion")
    parser.add_argument("--links", nargs="+", default=["ethernet_100mbit", "ethernet_1gbit"])
    parser.add_argument("--busy", nargs="+", type=float, default=[0.3, 0.6, 0.85], help="of what can be carried")
    parser.add_argument("--triples", type=int, default=0, help="other models that are simulated, three at a time")
    parser.add_argument("--max-cuts", type=int, default=40)
    parser.add_argument("--time-limit", type=float, default=5.0, help="of each solution (s)")
    parser.add_argument("--execute", action="store_true", help="whether the plans are run, too")
    parser.add_argument("--seconds", type=float, default=20.0, help="for which requests arise")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    others = [each for each in itertools.combinations(MODELS, 3) if set(each) != set(options.models)]
    rows, ran = [], []
    for models in [tuple(options.models), *others[: options.triples]]:
        for link in options.links:
            try:
                found = cases(options, models, link)
            except PlacementError as error:
                print(f"{' '.join(models)} over {link}: {error}", flush=True)
                continue
            rows += [row(case, link, part) for case, part in zip(found, options.busy, strict=True)]
            if options.execute and models == tuple(options.models):
                for case, part in zip(found, options.busy, strict=True):
                    means = np.array(execute(options, case))
                    together, alone = means.T
                    predicted = case.placed.solution.cost.mean_ms, case.placed.separate.mean_ms
                    ran.append(
                        [
                            case.names,
                            link,
                            f"{part:.0%}",
                            f"{median(together):.1f}",
                            f"{predicted[0] / median(together):.2f}",
                            f"{median(alone):.1f}",
                            f"{predicted[1] / median(alone):.2f}",
                            f"{median(alone / together):.2f} ({(alone / together).min():.2f} .."
                            f" {(alone / together).max():.2f})",
                        ]
                    )
    print_table(
        "mean over all requests, placed together, by formulas and simulated; each by itself over that",
        ["models", "link", "of the most", "ms", "simulated", "by itself", "simulated", "gap", "busiest"],
        rows,
    )
    if ran:
        print_table(
            f"measured, medians of {options.rounds} rounds of {options.seconds:g} s; predicted over measured beside",
            ["models", "link", "of the most", "ms", "predicted", "by itself ms", "predicted", "by itself / together"],
            ran,
        )


if __name__ == "__main__":
    main()
