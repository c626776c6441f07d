"""Interactive charts of plans: the chain of parts, and when each works."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pepper.report.charts import Figure, Style, figure, plain, safe, size, styles


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
    """Draw a model as its chain of parts, each as long as it has operators, with the bytes that cross at each cut.

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
            hint=f"part {number}, operators {part['start']} to {part['stop']}, on {unit}",
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
        "operators of the model, in order",
        "",
        height=150,
        barmode="overlay",
        showlegend=False,
        annotations=marks,
        yaxis={"showticklabels": False, "ticks": ""},
    )


def front(plans: Sequence[tuple[float, float]], chosen: tuple[float, float]) -> Figure:
    """Draw plans that no other plan beats in both latency (ms) and throughput (results/s), and the chosen one."""

    def points(name: str, pairs: Sequence[tuple[float, float]], style: Style, mode: str) -> Figure:
        return {
            "type": "scatter",
            "mode": mode,
            "name": name,
            "x": plain(x for x, _ in pairs),
            "y": plain(y for _, y in pairs),
            "line": {"color": style.colour, "shape": "hv", "dash": style.dash, "width": 1},
            "marker": {"color": style.colour, "symbol": style.symbol, "size": 10},
            "hovertemplate": "%{x} ms, %{y} a second<extra></extra>",
        }

    looks = styles(["Pareto front", "chosen"])
    return figure(
        [
            points("Pareto front", sorted(plans), looks["Pareto front"], "lines+markers"),
            points("chosen", [chosen], looks["chosen"], "markers"),
        ],
        "predicted latency (ms)",
        "predicted throughput (results/s)",
    )


def steps(names: Sequence[str], predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> Figure:
    """Draw each step's predicted time (hollow) and its measured mean (full), the first step at the top."""
    labels = [safe(name) for name in names]
    looks = styles(["predicted", "measured"])
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": plain(values),
            "y": labels,
            "marker": {"color": looks[name].colour, "symbol": looks[name].symbol + suffix, "size": 10},
            "hovertemplate": f"{name} %{{x}} ms<extra></extra>",
        }
        for name, values, suffix in (("predicted", predicted_ms, "-open"), ("measured", measured_ms, ""))
    ]
    return figure(
        data,
        "time (ms)",
        "",
        height=110 + 24 * len(labels),
        yaxis={"type": "category", "categoryarray": labels, "autorange": "reversed"},
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
            "pattern": {"shape": "/" if hatched else "", "fillmode": "overlay", "fgcolor": "#fff", "solidity": 0.35},
        },
        "text": safe(label),
        "textposition": "inside",
        "insidetextanchor": "middle",
        "hovertemplate": f"{safe(hint)}<extra></extra>",
    }
