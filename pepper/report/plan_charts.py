"""Interactive charts of plans: the chain of parts, and when each works."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pepper.report.charts import Figure, Style, figure, plain, safe, size


@dataclass(frozen=True)
class Event:
    """Something busy for a while.

    Attributes:
        row: The line of the timeline on which it is drawn.
        unit: The device whose colour it has.
        label: What it is.
        start_ms: When it begins.
        stop_ms: When it ends.
        moves: Whether it is a transfer, which is hatched.
    """

    row: str
    unit: str
    label: str
    start_ms: float
    stop_ms: float
    moves: bool = False


def timeline(events: Sequence[Event], looks: Mapping[str, Style]) -> Figure:
    """Draw who is busy when: a line a device or link, the first event at the top."""
    rows = list(dict.fromkeys(event.row for event in events))
    data = [
        _bar(
            [event.stop_ms - event.start_ms],
            [event.row],
            looks[event.unit].colour,
            event.label,
            base=[event.start_ms],
            hatched=event.moves,
            hint=f"{event.label}: {event.start_ms:.4g} to {event.stop_ms:.4g} ms",
        )
        for event in events
    ]
    return figure(
        data,
        "time (ms)",
        "",
        height=90 + 38 * len(rows),
        barmode="overlay",
        showlegend=False,
        yaxis={"type": "category", "categoryarray": [safe(row) for row in rows], "autorange": "reversed"},
    )


def chain(parts: Sequence[Mapping[str, Any]], units: Sequence[str], looks: Mapping[str, Style]) -> Figure:
    """Draw a model as its chain of parts, each as long as it has steps, with the bytes that cross at each cut.

    Args:
        parts: ``start``, ``stop`` and ``receive_bytes``.
        units: The device of each part.
        looks: The style of each device.
    """
    data = [
        _bar(
            [part["stop"] - part["start"]],
            ["model"],
            looks[unit].colour,
            f"{number}: {unit}",
            base=[part["start"]],
            hint=f"part {number}, steps {part['start']} to {part['stop']}, on {unit}",
        )
        for number, (part, unit) in enumerate(zip(parts, units, strict=True), 1)
    ]
    marks = [
        {
            "x": part["start"],
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "text": safe(size(part["receive_bytes"])),
            "showarrow": False,
            "font": {"size": 11},
        }
        for part in parts
        if part["receive_bytes"]
    ]
    return figure(
        data,
        "steps of the model, in order",
        "",
        height=150,
        barmode="overlay",
        showlegend=False,
        annotations=marks,
        yaxis={"showticklabels": False, "ticks": ""},
    )


def _bar(
    lengths: Sequence[float],
    rows: Sequence[str],
    colour: str,
    label: str,
    *,
    base: Sequence[float],
    hint: str,
    hatched: bool = False,
) -> Figure:
    return {
        "type": "bar",
        "orientation": "h",
        "x": plain(lengths),
        "y": [safe(row) for row in rows],
        "base": plain(base),
        "marker": {
            "color": colour,
            "line": {"color": "#fff", "width": 1},
            "pattern": {"shape": "/" if hatched else "", "fgcolor": "#fff", "solidity": 0.35},
        },
        "text": safe(label),
        "textposition": "inside",
        "insidetextanchor": "middle",
        "hovertemplate": f"{safe(hint)}<extra></extra>",
    }
