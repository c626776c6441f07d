"""Plans as tables, for a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.filesize import decimal
from rich.table import Table

from pepper.config.placing import Precision
from pepper.console.tables import figure, plain_table
from pepper.placement.queueing import UnderLoad

LEAST_MOVED_MS = 1e-3
"""Less is no transfer: the device computes in the host's memory."""


@dataclass(frozen=True)
class PartLine:
    """A part of a plan, or what is sent back at its end.

    Attributes:
        operators: Which operators it has.
        device: Where it runs.
        time_ms: Its predicted time; None for what is sent back.
        receive_ms: Time of the transfer before it.
        pickup_ms: Time until its device has taken it up; None for what is sent back.
        receive_bytes: Bytes of that transfer.
        memory_bytes: What it takes there; None for what is sent back.
        energy_j: Its energy; None where that is not known.
        moved_ms: Of its time, what bringing inputs to an accelerator's memory and outputs back takes.
        precision: What it computes in; empty for what is sent back.
    """

    operators: str
    device: str
    time_ms: float | None
    receive_ms: float
    pickup_ms: float | None
    receive_bytes: float
    memory_bytes: float | None
    energy_j: float | None = None
    moved_ms: float = 0.0
    precision: str = ""


@dataclass(frozen=True)
class PlanLine:
    """A whole plan.

    Attributes:
        name: How it was found.
        parts: Its parts and their devices.
        latency_ms: Time of one request.
        period_ms: Time between two results of a stream.
        sent_bytes: Bytes of one request over all links.
        energy_j: Energy of one request; None where it is not known.
        ratio: Its value over the best one's; None where it has none.
        broken: The rules that it breaks.
    """

    name: str
    parts: str
    latency_ms: float
    period_ms: float
    sent_bytes: float
    energy_j: float | None = None
    ratio: float | None = None
    broken: Sequence[str] = ()


def load_table(lines: Sequence[UnderLoad]) -> Table:
    """Return one line a rate."""
    table = plain_table(("requests/s, at random",), ("of the most", "median ms", "p95 ms", "p99 ms"))
    for line in lines:
        times = (figure(value) for value in (line.p50_ms, line.p95_ms, line.p99_ms))
        table.add_row(figure(line.rate_per_s), f"{line.utilisation:.0%}", *times)
    return table


def plan_table(lines: Sequence[PartLine]) -> Table:
    """Return one line a part: where it runs, and what that takes."""
    metered = any(line.energy_j is not None for line in lines)
    moving = any(line.moved_ms >= LEAST_MOVED_MS for line in lines)
    mixed = any(line.precision not in ("", Precision.fp32) for line in lines)
    columns = (
        "predicted ms",
        *(["of it host-device"] if moving else []),
        "transfer ms",
        "pickup ms",
        "received",
        "memory",
        *(["energy J"] if metered else []),
    )
    table = plain_table(("operators", "device", *(["precision"] if mixed else [])), columns)
    for line in lines:
        table.add_row(
            line.operators,
            line.device,
            *([line.precision] if mixed else []),
            "" if line.time_ms is None else figure(line.time_ms),
            *([_moved(line.moved_ms)] if moving else []),
            figure(line.receive_ms) if line.receive_bytes else "",
            "" if line.pickup_ms is None else figure(line.pickup_ms),
            decimal(round(line.receive_bytes)) if line.receive_bytes else "",
            "" if line.memory_bytes is None else decimal(round(line.memory_bytes)),
            *([_energy(line.energy_j)] if metered else []),
        )
    return table


def comparison_table(lines: Sequence[PlanLine]) -> Table:
    """Return one line a plan: what it costs, the first being what the others are compared with."""
    columns = ("latency ms", "per second", "sent")
    metered = any(line.energy_j is not None for line in lines)
    table = plain_table(("plan", "parts"), (*columns, *(["energy J"] if metered else []), "to the best"))
    table.add_column("breaks")
    for line in lines:
        table.add_row(
            line.name,
            line.parts,
            figure(line.latency_ms),
            figure(1000 / line.period_ms) if line.period_ms else "",
            decimal(round(line.sent_bytes)),
            *([_energy(line.energy_j)] if metered else []),
            "" if line.ratio is None else f"{line.ratio:.3f}",
            "; ".join(line.broken),
        )
    return table


def _moved(value_ms: float) -> str:
    return figure(value_ms) if value_ms >= LEAST_MOVED_MS else ""


def _energy(value_j: float | None) -> str:
    return "" if value_j is None else figure(value_j)
