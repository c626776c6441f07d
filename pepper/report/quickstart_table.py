"""Plans that were predicted and run, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from pepper.console.tables import figure, plain_table


@dataclass(frozen=True)
class RanLine:
    """A plan, predicted and measured.

    Attributes:
        name: Which plan.
        devices: Of its parts, in order.
        measured_ms: Latency of one request.
        measured_per_s: Throughput.
        predicted_ms: The latency predicted; None where nothing was.
        predicted_per_s: The same of the throughput.
    """

    name: str
    devices: str
    measured_ms: float
    measured_per_s: float
    predicted_ms: float | None = None
    predicted_per_s: float | None = None


def ran_table(lines: Sequence[RanLine]) -> Table:
    """Return one line a plan, with the errors of its predictions."""
    table = plain_table(
        ("plan", "devices"),
        ("latency ms, predicted", "measured", "error", "per second, predicted", "measured", "error"),
    )
    for line in lines:
        table.add_row(
            line.name,
            line.devices,
            *_against(line.predicted_ms, line.measured_ms),
            *_against(line.predicted_per_s, line.measured_per_s),
        )
    return table


def _against(predicted: float | None, measured: float) -> tuple[str, str, str]:
    """Return a prediction, what was measured, and the error."""
    if predicted is None:
        return "", figure(measured), ""
    return figure(predicted), figure(measured), f"{predicted / measured - 1:+.1%}"
