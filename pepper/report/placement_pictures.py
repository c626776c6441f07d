"""The pictures of a placement: a request, a stream, the trade-offs, and latency against bandwidth."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pepper.console.progress import Told
from pepper.placement.baselines import single_device
from pepper.placement.chain import soonest
from pepper.placement.evaluate import evaluate
from pepper.placement.objectives import LATENCY, Costed
from pepper.placement.queueing import Visit, play
from pepper.placement.sensitivity import scale_bandwidth
from pepper.planning.placing import BANDWIDTHS, MOST_S, Placed
from pepper.report import placement_figures as figures
from pepper.report import timeline_figures
from pepper.report.placements import link_mbit_s
from pepper.report.timelines import Busy

_STREAM = 6
"""Requests in the figure of a pipelined stream."""


def draw(placed: Placed, folder: Path, told: Told) -> None:
    """Draw a request, a stream, the Pareto front, and latency against bandwidth."""
    front = placed.front_plans or [placed.plan]
    others: dict[str, Costed] = {"pepper": placed.plan}
    others |= {
        name: entry[1] for name, entry in placed.baselines.items() if entry is not None and not entry[1].violations
    }
    rate = link_mbit_s(placed)
    curves = _curves(placed)
    for name, count, title in (("request", 1, "one request"), ("stream", _STREAM, f"a stream of {_STREAM} requests")):
        timeline_figures.timelines({title: _busy(placed.works, count)}, folder / name, "predicted time (ms)")
        told("draw", title)
    figures.tradeoff(
        [(cost.latency_ms, 1000 / cost.period_ms) for cost in front if cost.period_ms],
        {name: (cost.latency_ms, 1000 / cost.period_ms) for name, cost in others.items() if cost.period_ms},
        folder / "pareto",
    )
    told("draw", "trade-offs")
    figures.against_bandwidth(
        curves,
        (BANDWIDTHS * (rate or 1.0)).tolist(),
        "bandwidth of each link (Mbit/s)" if rate else "bandwidth, over that of the fleet",
        folder / "bandwidth",
    )
    told("draw", "latency by bandwidth")


def _busy(works: Sequence[Visit], count: int) -> list[Busy]:
    return [
        Busy(
            event.resource,
            event.resource.rpartition("->")[2],
            event.request + 1,
            "",
            event.start_ms,
            event.stop_ms,
        )
        for event in play(works, [0.0] * count)
    ]


def _curves(placed: Placed) -> dict[str, list[float]]:
    """Latency at each bandwidth: the best plan there, the chosen plan, the best single device."""
    curves: dict[str, list[float]] = {"best plan": [], "this plan": [], "best single device": []}
    for factor in BANDWIDTHS.tolist():
        problem = scale_bandwidth(placed.problem, factor)
        best = soonest(problem, time.monotonic() + MOST_S)
        single = single_device(problem, LATENCY)
        curves["best plan"].append(best.value if best else np.inf)
        curves["this plan"].append(evaluate(problem, placed.decision.chosen.stages).latency_ms)
        curves["best single device"].append(evaluate(problem, single).latency_ms if single else np.inf)
    return curves
