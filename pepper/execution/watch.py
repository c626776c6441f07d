"""When to move to another plan: not before it has been better by a margin for a while."""

from dataclasses import dataclass


@dataclass
class Watch:
    """A rule with hysteresis: a moment's load, and a gain that is not worth a move, change nothing.

    Attributes:
        margin: By which part of the current plan's value another one must be lower, 0 to 1.
        patience_s: For how long, without a break.
    """

    margin: float
    patience_s: float
    _since_s: float | None = None

    def note(self, at_s: float, current_ms: float, best_ms: float) -> float | None:
        """Take in what is predicted at a moment.

        Args:
            at_s: The moment, by any clock; never before the last one.
            current_ms: What the plan at work is predicted to take.
            best_ms: The same of the best plan.

        Returns:
            Since when the best plan has been better, if it is time to move to it (patience then begins anew);
            else None.
        """
        if not best_ms < (1 - self.margin) * current_ms:
            self._since_s = None
            return None
        since_s = self._since_s = at_s if self._since_s is None else self._since_s
        if at_s - since_s < self.patience_s:
            return None
        self._since_s = None
        return since_s
