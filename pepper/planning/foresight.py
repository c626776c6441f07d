"""What the champion says of plans as loads change, with all that takes time done before the run."""

import threading
from dataclasses import replace

import numpy as np

from pepper.errors import ExecutionError, PlacementError
from pepper.execution.adapting import Loads, Outlook
from pepper.execution.layout import Layout
from pepper.placement.chain import Solution, solve
from pepper.placement.evaluate import Stage, Stages, evaluate
from pepper.placement.problem import ChainProblem
from pepper.planning.planned import Planned
from pepper.planning.replanning import next_layout
from pepper.planning.splitting import Splitter

STEP_PERCENT = 10
LEVELS = range(0, 101, STEP_PERCENT)

Situation = tuple[tuple[int, ...], frozenset[str]]
"""The level of each device's load, and the lost devices."""


class Foresight:
    """Predicts every part on every device at every level of load, and solves a plan's problem at those that occur.

    Args:
        planned: The first plan; its configuration's rules (``place.*``, ``objective.*``) hold for all plans.
        splitter: Writes the parts of the next ones.
        layout: The first plan's layout.

    Raises:
        ExecutionError: The plan is not among those that this configuration allows.
        LatencyError: The champion cannot be used by this pepper.
    """

    def __init__(self, planned: Planned, splitter: Splitter, layout: Layout) -> None:
        forecast = planned.forecast
        self._splitter, self._objective = splitter, planned.plan.minimised
        self._time_limit_s = planned.config.place.time_limit_seconds
        self._borders = forecast.borders
        self._problem = planned.problem
        self._names = [device.name for device in self._problem.devices]
        scalings = [forecast.loaded(name) for name in self._names]
        self._loaded = [
            [scale(self._problem, level) for scale in scalings] for level in LEVELS
        ]  # by level, then device
        self._levels = self._level(forecast.fleet.load_percent)
        self._solutions: dict[Situation, Solution | None] = {}
        first = self._first(planned)
        self._stages: dict[Layout, Stages] = {layout: first}
        self._layouts: dict[Stages, Layout] = {first: layout}
        self._lock = threading.Lock()

    def _first(self, planned: Planned) -> Stages:
        positions, parts, kind = self._borders.positions, planned.plan.parts, planned.config.cuts.kind
        for part in parts:
            for position in (part.start, part.stop):
                if position not in positions:
                    raise ExecutionError(
                        f"execute.moves.allowed=true: the plan is cut before operator {position}, where cuts={kind}"
                        " has no cut; give the options that the plan was placed with"
                    )
        return tuple(
            Stage(positions.index(part.start), positions.index(part.stop), self._names.index(part.device))
            for part in parts
        )

    def foresee(self, layout: Layout, loads: Loads, lost: frozenset[str]) -> Outlook:
        """Compare the layout at work with the best one at these loads."""
        self._levels = self._level(loads)
        situation = (self._levels, lost)
        solution = self._solve(situation)
        if solution is None:
            return Outlook(float("inf"), float("inf"), lambda: layout)
        current_ms = self._objective.value(evaluate(self._at(situation), self._stages[layout]))
        return Outlook(current_ms, solution.value, lambda: self._layout(situation, solution))

    def replan(self, lost: frozenset[str]) -> Layout | None:
        """Return the best layout without these devices, at the loads that were seen last."""
        situation = (self._levels, lost)
        solution = self._solve(situation)
        return None if solution is None else self._layout(situation, solution)

    def _level(self, loads: Loads) -> tuple[int, ...]:
        return tuple(round(loads[name] / STEP_PERCENT) for name in self._names)

    def _at(self, situation: Situation) -> ChainProblem:
        levels, lost = situation
        problem = self._problem
        return replace(
            problem,
            part_ms=np.stack([self._loaded[level][k].part_ms[..., k] for k, level in enumerate(levels)], axis=-1),
            handling_ms=np.stack([self._loaded[level][k].handling_ms[:, k] for k, level in enumerate(levels)], axis=-1),
            excluded=problem.excluded | lost,
        )

    def _solve(self, situation: Situation) -> Solution | None:
        if situation not in self._solutions:
            try:
                found = solve(self._at(situation), self._objective, self._time_limit_s)
            except PlacementError:
                found = None
            self._solutions[situation] = found
        return self._solutions[situation]

    def _layout(self, situation: Situation, solution: Solution) -> Layout:
        with self._lock:  # the run asks when a device is lost, the watcher when loads change
            if solution.stages not in self._layouts:
                layout = next_layout(self._splitter, self._borders, self._at(situation), solution, self._objective)
                self._layouts[solution.stages], self._stages[layout] = layout, solution.stages
            return self._layouts[solution.stages]
