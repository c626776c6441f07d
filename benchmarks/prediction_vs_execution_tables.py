"""The tables of `prediction_vs_execution`, from its file's lines."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks.common import print_table

CHOSEN = "pepper"
"""The role of the plan that pepper would run."""

Case = dict[str, Any]


def print_tables(lines: Sequence[Case], objectives: Sequence[str], roles: Sequence[str]) -> None:
    """Print errors of predictions, regrets of plans, and both by model, link and load pattern."""
    cases = [case for case in lines if case["correct"]]
    plans = [plan for case in cases for plan in case["plans"]]
    requests = sum(plan["requests"] for plan in plans)
    print(
        f"{len(cases)} cases, {len(plans)} plans, {requests} single requests; {len(lines) - len(cases)} wrong answers"
    )
    if not cases:
        return
    foreign = [max(case["foreign_percent"].values()) for case in cases]
    print(f"taken by others, of a case's worst device: median {np.median(foreign):.1f} %, most {max(foreign):.1f} %")
    rows = []
    for objective in objectives:
        name = "latency" if objective == "latency" else "throughput"
        rows.append(
            [f"{name}, chosen plans", *_errors([_error(_chosen(case, objective), objective) for case in cases])]
        )
        ran = [plan for plan in plans if objective in plan["measured"]]
        rows.append([f"{objective}, all plans", *_errors([_error(plan, objective) for plan in ran])])
    for name, key in (("stages, all plans", "stages"), ("transfers, all plans", "hops")):
        rows.append([name, *_errors([error for plan in plans for error in _each(plan, key)])])
    print_table(
        "error of predicted times (of throughput: of the time between two answers)",
        ["what", "median", "90 %", "worst", "median, signed", "number"],
        rows,
    )
    for objective in objectives:
        print_table(
            f"regret in {objective}: against the best of all plans that were run",
            ["plan", "median", "90 %", "worst", "within 2 %", "cases"],
            [[role, *_regrets([_regret(case, objective, role) for case in cases])] for role in roles],
        )
    for by in ("model", "link", "pattern"):
        groups = {name: [case for case in cases if case[by] == name] for name in dict.fromkeys(c[by] for c in cases)}
        header = [f"{what} {figure}" for what in objectives for figure in ("error", "regret", "worst")]
        print_table(
            f"pepper by {by}: median error, median and worst regret",
            [by, *header],
            [[name, *(cell for o in objectives for cell in _summary(group, o))] for name, group in groups.items()],
        )


def _chosen(case: Case, objective: str, role: str = CHOSEN) -> Any:
    return case["plans"][case["roles"][objective][role]]


def _error(plan: Any, objective: str) -> float:
    return float(plan["predicted"][objective] / plan["measured"][objective] - 1)


def _each(plan: Any, key: str) -> Iterator[float]:
    """Yield the errors of each stage or hop; the answer's way within one device is not predicted."""
    for predicted, measured in zip(plan["predicted"][key], plan["measured"].get(key, ()), strict=False):
        if predicted and measured:  # what is there before the stage looks for it took no time of its own
            yield predicted / measured - 1


def _regret(case: Case, objective: str, role: str) -> float:
    best = min(plan["measured"][objective] for plan in case["plans"] if objective in plan["measured"])
    return float(_chosen(case, objective, role)["measured"][objective] / best)


def _errors(values: Sequence[float]) -> list[str]:
    size = np.abs(values)
    figures = (np.median(size), np.quantile(size, 0.9), size.max())
    return [*(f"{figure:.1%}" for figure in figures), f"{np.median(values):+.1%}", str(len(values))]


def _regrets(values: Sequence[float]) -> list[str]:
    figures = (np.median(values), np.quantile(values, 0.9), max(values))
    return [*(f"{figure:.3f}" for figure in figures), f"{np.mean(np.array(values) <= 1.02):.0%}", str(len(values))]


def _summary(cases: Sequence[Case], objective: str) -> list[str]:
    errors = [abs(_error(_chosen(case, objective), objective)) for case in cases]
    regrets = [_regret(case, objective, CHOSEN) for case in cases]
    return [f"{np.median(errors):.1%}", f"{np.median(regrets):.3f}", f"{max(regrets):.3f}"]
