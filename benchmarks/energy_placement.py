"""Are plans by energy the best there are, and what does a joule cost in time?

1. Random small problems with stated powers, as chains and with branches: the least energy, the least latency under an
   energy budget, the least energy under a latency limit, and the whole front of latency, period and energy. Reference:
   exhaustive search over every plan. Answers count as equal up to one part in a million.
2. A packaged model on a fleet of a camera, an edge box and a server, whose powers and links are stated here (they stand
   for no device at hand): the energy of the quickest plan, and what energy budgets between that and the least cost in
   latency. Times are of the physical estimate behind the latency models, from this machine's calibration.

    python -m benchmarks.energy_placement
    python -m benchmarks.energy_placement --problems 1000
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.common import composed, print_table
from benchmarks.dag_placement import Estimate
from pepper.config import DeviceConfig, LoadConfig
from pepper.console.tables import figure
from pepper.errors import PlacementError
from pepper.fleet import Fleet, FleetDevice, Link, everywhere
from pepper.graph.model import find_model
from pepper.hosts.local import here
from pepper.placement.branched import OUTSIDE, BranchedProblem, Flow, evaluate_branched
from pepper.placement.branched_search import solve_branched
from pepper.placement.chain import solve
from pepper.placement.evaluate import Stage, Stages, evaluate
from pepper.placement.front import STEP, chain_front, unbeaten
from pepper.placement.objectives import ENERGY, LATENCY, Costed, Objective
from pepper.placement.problem import ChainProblem, DeviceKind, Links
from pepper.planning.branching import branched_front
from pepper.planning.forecast import Forecast
from pepper.planning.posing import chain_problem

POWERS_W = {"camera": 1.5, "edge": 6.0, "server": 60.0}
SHARES = {"camera": 0.25, "edge": 0.5, "server": 1.0}
LINK = Link(100.0, 1.0, energy_nj_per_byte=100.0)
BUDGETS = 5
SOLVE_S = 30.0


def random_problem(seed: int) -> BranchedProblem:
    """Return steps with branches on up to three devices; its chain relays what crosses each border."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(2, 6)), int(rng.integers(2, 4))
    names = [f"device{k}" for k in range(d)]
    flows = [Flow(OUTSIDE, (0,), 100.0)]
    for writer in range(n):
        readers = [k for k in range(writer + 1, n) if rng.random() < 0.5] or [n]
        flows.append(Flow(writer, tuple(readers), float(rng.integers(50, 400))))
    shape = (d, d)
    chain = ChainProblem.of(
        [DeviceKind(name, wait_ms=0.1, power_w=float(rng.uniform(0.5, 50.0))) for name in names],
        rng.uniform(0.5, 3.0, (n, 1)) * rng.uniform(0.5, 3.0, (1, d)),
        rng.uniform(50.0, 400.0, n + 1),
        Links(*(rng.uniform(0.0, most, shape) for most in (0.3, 0.01, 0.005, 1e-4))),
        handling_ms=0.1,
        source=names[0],
        sink=names[0],
        reuse=True,
    )
    return BranchedProblem(chain, tuple(flows), np.full(d, 0.1), np.zeros(d))


def every_plan(problem: BranchedProblem) -> Iterator[Stages]:
    for count in range(problem.n_steps):
        for inner in itertools.combinations(range(1, problem.n_steps), count):
            spans = list(itertools.pairwise((0, *inner, problem.n_steps)))
            for devices in itertools.product(range(len(problem.chain.devices)), repeat=len(spans)):
                yield tuple(Stage(a, b, k) for (a, b), k in zip(spans, devices, strict=True))


def equal(one: float, other: float) -> bool:
    return abs(one - other) <= 2 * STEP * abs(other) + 1e-12


def same_front(found: Sequence[Costed], wanted: Sequence[Costed]) -> bool:
    figures = [[(c.latency_ms, c.period_ms, c.energy_j) for c in costs] for costs in (found, wanted)]
    return len(found) == len(wanted) and all(
        any(all(map(equal, one, other)) for other in figures[1]) for one in figures[0]
    )


def against_all(problem: BranchedProblem, branched: bool, counts: dict[str, int]) -> int:
    """Count which answers are those of exhaustive search; return how many plans the front has."""
    chain = problem.chain

    def cost(plan: Stages) -> Costed:
        return evaluate_branched(problem, plan) if branched else evaluate(chain, plan)

    def best(goal: Objective, **limits: float) -> Costed | None:
        limited = chain.with_limits(**limits)
        if not branched:
            try:
                return cost(solve(limited, goal, SOLVE_S).stages)
            except PlacementError:
                return None
        found = solve_branched(replace(problem, chain=limited), goal, SOLVE_S)
        return None if found is None else cost(found.stages)

    costs = [cost(plan) for plan in every_plan(problem)]
    wanted = unbeaten(costs)
    middle_j = float(np.median([each.energy_j for each in wanted]))
    middle_ms = float(np.median([each.latency_ms for each in wanted]))
    least: list[tuple[str, Callable[[Costed], float], Costed | None, float]] = [
        ("least energy", lambda c: c.energy_j, best(ENERGY), min(c.energy_j for c in costs)),
        (
            "latency, energy limited",
            lambda c: c.latency_ms,
            best(LATENCY, energy_j=middle_j),
            min(c.latency_ms for c in costs if c.energy_j <= middle_j),
        ),
        (
            "energy, latency limited",
            lambda c: c.energy_j,
            best(ENERGY, latency_ms=middle_ms),
            min(c.energy_j for c in costs if c.latency_ms <= middle_ms),
        ),
    ]
    for name, value, found, optimum in least:
        counts[name] += found is not None and equal(value(found), optimum)
    front = branched_front(problem, SOLVE_S) if branched else chain_front(chain, SOLVE_S)
    counts["front of three"] += same_front([cost(each.stages) for each in front.plans], wanted)
    return len(wanted)


def stated_fleet() -> Fleet:
    core = here().cores()[-1:]
    devices = {
        name: FleetDevice(
            DeviceConfig(name=name, kind="emulated", cores=core, threads=1, share=SHARES[name]),
            LoadConfig(0, name="idle"),
            power_w=power_w,
        )
        for name, power_w in POWERS_W.items()
    }
    return Fleet(devices, everywhere(list(devices), LINK), "camera", "camera")


def budgets(name: str) -> None:
    """Print what less energy costs in latency."""
    config, fleet = composed("task=place", f"model={name}"), stated_fleet()
    model = find_model(config.model)
    problem = chain_problem(config, Forecast(config, model, model.graph(), fleet, Estimate()))
    begun = time.perf_counter()
    least, quickest = solve(problem, ENERGY, SOLVE_S), solve(problem, LATENCY, SOLVE_S)
    most_j = evaluate(problem, quickest.stages).energy_j
    rows = []
    for budget_j in np.linspace(most_j, least.value, BUDGETS).tolist():
        found = solve(problem.with_limits(energy_j=budget_j * (1 + 1e-9)), LATENCY, SOLVE_S)
        cost = evaluate(problem, found.stages)
        where = " - ".join(problem.devices[stage.device].name for stage in found.stages)
        saved, longer = cost.energy_j / most_j, cost.latency_ms / quickest.value
        rows.append(
            [figure(budget_j), figure(cost.energy_j), f"{saved:.3f}", f"{longer:.3f}", where, f"{found.gap:.1%}"]
        )
    header = ["budget J", "used J", "to the quickest", "latency to the quickest", "parts on", "gap"]
    print_table(f"{name}, quickest plan {figure(quickest.value)} ms, {figure(most_j)} J", header, rows)
    front = chain_front(problem, SOLVE_S)
    took_s = time.perf_counter() - begun
    print(
        f"front of three: {len(front.plans)} plans, {'all' if front.complete else 'cut short'}; {took_s:.1f} s in all"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=100, help="random problems of each kind (default: 100)")
    parser.add_argument("--model", default="googlenet", help="a packaged model (default: googlenet)")
    args = parser.parse_args()
    rows = []
    for kind in ("chain", "branches"):
        counts = dict.fromkeys(
            ("least energy", "latency, energy limited", "energy, latency limited", "front of three"), 0
        )
        sizes = [against_all(random_problem(seed), kind == "branches", counts) for seed in range(args.problems)]
        rows += [[kind, name, f"{count} of {args.problems}"] for name, count in counts.items()]
        rows[-1][1] += f" ({min(sizes)} to {max(sizes)} plans)"
    print_table("equal to exhaustive search", ["plans", "answer", "equal"], rows)
    budgets(args.model)


if __name__ == "__main__":
    main()
