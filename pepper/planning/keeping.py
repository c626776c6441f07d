"""Plans whose answers stay near the model's own: what breaks the limit is found, and left in the model's precision."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from pepper.config.placing import Precision
from pepper.errors import PlacementError
from pepper.placement.accuracy import Accuracy
from pepper.placement.evaluate import Stage, Stages
from pepper.placement.problem import ChainProblem
from pepper.planning.forecast import Forecast
from pepper.planning.forms import Forms

MOST_ROUNDS = 12
"""Then no part of a plan that breaks the limit may overlap with one in its precision."""


class Keeper:
    """Measures the errors of a forecast's plans, and narrows the forecast where the limit is broken.

    A part whose precision breaks the limit is halved as long as one half alone breaks it. The precision is then denied
    to every part that holds what is left: a part that holds it is taken to be as far off. So plans that would keep the
    limit may be missed, and none that breaks it is taken.

    Args:
        forms: The model in the precisions that are allowed.
        forecast: What is predicted of its parts.

    Attributes:
        found: What was measured, by plan.
        narrowed: Whether a precision was denied to some part: plans are then best of those that are left.
    """

    def __init__(self, forms: Forms, forecast: Forecast) -> None:
        self._forms, self._forecast = forms, forecast
        self._rounds = 0
        self.found: dict[Stages, Accuracy] = {}
        self.narrowed = False

    def narrows(self, problem: ChainProblem, plans: Iterable[Stages]) -> bool:
        """Measure plans; where one breaks the limit, deny a precision to its worst part, and say so.

        Args:
            problem: What the plans solve, posed with the forecast.
            plans: Of the problem.

        Raises:
            ModelError: A part cannot be made in its precision.
            PlacementError: A plan breaks the limit, and the model's own precision is not allowed.
        """
        for stages in dict.fromkeys(plans):
            precisions = [self._precision(problem, stage) for stage in stages]
            if set(precisions) == {Precision.fp32}:
                continue
            accuracy = self._forms.accuracy(self._spans(stages, dict(enumerate(precisions))))
            if accuracy.error > accuracy.max_error:
                if Precision.fp32 not in self._forecast.precisions:
                    raise PlacementError(
                        f"place.max_error={accuracy.max_error:g}: answers of the best plan differ by"
                        f" {accuracy.error:.2g}; raise it, or allow fp32 in place.variants, too"
                    )
                self._deny(problem, stages, precisions)
                self.narrowed = True
                return True
            self.found[stages] = accuracy
        return False

    def _deny(self, problem: ChainProblem, stages: Stages, precisions: Sequence[Precision]) -> None:
        """Deny its precision to the part that gains least time for its error."""
        self._rounds += 1
        lower = [number for number, precision in enumerate(precisions) if precision != Precision.fp32]

        def cost(number: int) -> float:
            stage = stages[number]
            time_ms = problem.part_time_ms(stage.start, stage.stop, stage.device)
            gain_ms = self._forecast.own_ms(stage.start, stage.stop, problem.devices[stage.device].name) - time_ms
            return self._alone(stages, {number: precisions[number]}) / max(gain_ms, 1e-9)

        worst = max(lower, key=cost) if len(lower) > 1 else lower[0]
        stage, precision = stages[worst], precisions[worst]
        if self._rounds > MOST_ROUNDS:
            self._forecast.deny(precision, stage.start, stage.stop, overlapping=True)
        else:
            self._forecast.deny(precision, *self._culprit(stage.start, stage.stop, precision))

    def _culprit(self, start: int, stop: int, precision: Precision) -> tuple[int, int]:
        """Halve a part as long as one half alone breaks the limit."""
        while stop - start > 1:
            middle = (start + stop) // 2
            halves = [(start, middle), (middle, stop)]
            errors = [self._error_of(half, precision) for half in halves]
            worse = max(range(2), key=errors.__getitem__)
            if errors[worse] <= self._forms.max_error:
                break
            start, stop = halves[worse]
        return start, stop

    def _error_of(self, span: tuple[int, int], precision: Precision) -> float:
        last = len(self._forecast.borders.positions) - 1
        ends = sorted({0, *span, last})
        stages = tuple(Stage(a, b, 0) for a, b in pairwise(ends))
        return self._alone(stages, {ends.index(span[0]): precision})

    def _alone(self, stages: Stages, lower: Mapping[int, Precision]) -> float:
        return self._forms.error(self._spans(stages, lower))

    def _spans(self, stages: Stages, lower: Mapping[int, Precision]) -> list[tuple[int, int, Precision]]:
        at = self._forecast.borders.positions
        return [(at[s.start], at[s.stop], lower.get(number, Precision.fp32)) for number, s in enumerate(stages)]

    def _precision(self, problem: ChainProblem, stage: Stage) -> Precision:
        return self._forecast.precisions[problem.part_form(stage.start, stage.stop, stage.device)]
