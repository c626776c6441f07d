"""Plans at work as tables, for a terminal and for CSV files."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.filesize import decimal
from rich.table import Table

from pepper.console.tables import figure, plain_table


@dataclass(frozen=True)
class StepLine:
    """A step of a request, or the whole way, predicted and measured.

    Attributes:
        what: A stage, a transfer, or the whole.
        where: Its device or devices.
        predicted_ms: By the plan; None where it says nothing.
        measured_ms: Mean; means add up along the way, as the predictions do.
        median_ms: Median; below the mean where a throttled device stops in the middle of some of the requests.
        wait_ms: Mean wait before it in an idle pipeline: until the device's turn, or a core of it, came.
        queue_ms: Median wait before it while the pipeline was saturated; None where nothing waits.
        memory_bytes: The most that its process took; None where there is none.
    """

    what: str
    where: str
    predicted_ms: float | None
    measured_ms: float
    median_ms: float | None = None
    wait_ms: float | None = None
    queue_ms: float | None = None
    memory_bytes: float | None = None

    @property
    def error(self) -> float | None:
        """The prediction's error, as a fraction of what was measured."""
        if not self.predicted_ms or not self.measured_ms:
            return None
        return self.predicted_ms / self.measured_ms - 1


@dataclass(frozen=True)
class LinkLine:
    """A link, wanted and measured.

    Attributes:
        name: Its two devices.
        wanted_mbit_s: Bandwidth; None is unlimited.
        measured_mbit_s: The same, measured.
        wanted_ms: Latency.
        measured_ms: The same, measured.
    """

    name: str
    wanted_mbit_s: float | None
    measured_mbit_s: float
    wanted_ms: float
    measured_ms: float


@dataclass(frozen=True)
class RunLine:
    """A plan that was run.

    Attributes:
        name: How it was found.
        devices: Of its parts, in order.
        latency_ms: Mean of single requests.
        per_second: Throughput.
        ratio: Its value over the best one's in the plan's objective; None where energy counts, which is not measured.
    """

    name: str
    devices: str
    latency_ms: float
    per_second: float
    ratio: float | None


@dataclass(frozen=True)
class MoveLine:
    """A move to another plan while requests came at a rate.

    Attributes:
        at_s: When, from the stream's start.
        before: Devices of the parts before, in order.
        after: The same after.
        loads: Loads that decided, by device.
        predicted_before_ms: Value of the plan before at these loads, in what the plan minimises.
        predicted_after_ms: The same after.
        before_p50_ms: Median latency from when the other plan was predicted to be better until the move; NaN where
            there was no answer.
        after_p50_ms: The same from the move until the next change, or the end.
        before_per_s: Answers a second in that time before.
        after_per_s: The same after.
    """

    at_s: float
    before: str
    after: str
    loads: str
    predicted_before_ms: float
    predicted_after_ms: float
    before_p50_ms: float
    after_p50_ms: float
    before_per_s: float
    after_per_s: float


def steps_table(lines: Sequence[StepLine]) -> Table:
    """Return one line a step, with the error of its prediction."""
    table = plain_table(
        ("", "device"), ("predicted ms", "mean ms", "error", "median ms", "waits ms", "if saturated", "process memory")
    )
    for line in lines:
        table.add_row(
            line.what,
            line.where,
            "" if line.predicted_ms is None else figure(line.predicted_ms),
            figure(line.measured_ms),
            "" if line.error is None else f"{line.error:+.1%}",
            "" if line.median_ms is None else figure(line.median_ms),
            "" if line.wait_ms is None else figure(line.wait_ms),
            "" if line.queue_ms is None else figure(line.queue_ms),
            "" if line.memory_bytes is None else decimal(round(line.memory_bytes)),
        )
    return table


def links_table(lines: Sequence[LinkLine]) -> Table:
    """Return one line a link."""
    table = plain_table(("link",), ("wanted Mbit/s", "measured", "wanted latency ms", "measured"))
    for line in lines:
        wanted = "unlimited" if line.wanted_mbit_s is None else f"{line.wanted_mbit_s:g}"
        table.add_row(line.name, wanted, figure(line.measured_mbit_s), f"{line.wanted_ms:g}", figure(line.measured_ms))
    return table


def runs_table(lines: Sequence[RunLine]) -> Table:
    """Return one line a plan that was run, the given one first."""
    table = plain_table(("plan, as run", "devices"), ("latency ms", "per second", "to the best"))
    for line in lines:
        table.add_row(
            line.name,
            line.devices,
            figure(line.latency_ms),
            figure(line.per_second),
            "" if line.ratio is None else f"{line.ratio:.3f}",
        )
    return table


def moves_table(lines: Sequence[MoveLine]) -> Table:
    """Return one line a move: when, why, and what it was worth."""
    table = plain_table(("moved from", "to", "at loads"), ("after s", "predicted ms", "median ms", "answers/s"))
    for line in lines:
        table.add_row(
            line.before,
            line.after,
            line.loads,
            f"{line.at_s:.1f}",
            f"{figure(line.predicted_before_ms)} -> {figure(line.predicted_after_ms)}",
            f"{figure(line.before_p50_ms)} -> {figure(line.after_p50_ms)}",
            f"{figure(line.before_per_s)} -> {figure(line.after_per_s)}",
        )
    return table
