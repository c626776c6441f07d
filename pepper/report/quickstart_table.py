"""Plans that were predicted and run, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from pepper.report.tables import figure, plain_table


@dataclass(frozen=True)
class RanLine:
    """A plan, predicted and measured.

    Attributes:
        name: Which plan.
        devices: Of its parts, in order.
        predicted_ms: Latency of one request.
        measured_ms: The same, measured.
        predicted_per_s: Throughput.
        measured_per_s: The same, measured.
    """

    name: str
    devices: str
    predicted_ms: float
    measured_ms: float
    predicted_per_s: float
    measured_per_s: float


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
            figure(line.predicted_ms),
            figure(line.measured_ms),
            f"{line.predicted_ms / line.measured_ms - 1:+.1%}",
            figure(line.predicted_per_s),
            figure(line.measured_per_s),
            f"{line.predicted_per_s / line.measured_per_s - 1:+.1%}",
        )
    return table
