"""Interactive charts of plans: the chain of parts, and when each works."""

from collections.abc import Mapping, Sequence

from rich.filesize import decimal

from pepper.placement.plan import PlannedPart
from pepper.report.charts import Figure, Style, figure, plain, safe, styles
from pepper.report.timelines import Busy, lanes, side_by_side

_THICK = 0.8  # of the distance between two lines
_NARROW = 0.01  # of the axis
_BARS = {"barmode": "overlay", "showlegend": False, "uniformtext": {"mode": "hide", "minsize": 10}}


def timeline(
    events: Sequence[Busy],
    looks: Mapping[str, Style],
    rows: Sequence[str] = (),
    longest_ms: float | None = None,
) -> Figure:
    """Draw who is busy when: a line a device or link; where there are several requests, each bar has its number.

    Args:
        events: What is drawn.
        looks: The style of each device.
        rows: The lanes from the top, also those without an event; by default those of the events.
        longest_ms: Where the time axis ends; by default with the last event.
    """
    rows = rows or lanes(events)
    longest_ms = longest_ms or max(event.stop_ms for event in events)
    several = len({event.request for event in events}) > 1
    placed = list(zip(events, side_by_side(events), strict=True))
    bars = []
    for moves in (False, True):
        chosen = [(event, track, of) for event, (track, of) in placed if event.moves == moves]
        bars.append(
            _bars(
                [event.took_ms for event, *_ in chosen],
                [event.start_ms for event, *_ in chosen],
                [event.lane for event, *_ in chosen],
                [looks[event.device].colour for event, *_ in chosen],
                [str(event.request) if several else event.label for event, *_ in chosen],
                [f"request {event.request}, {event.hint}" if several else event.hint for event, *_ in chosen],
                longest_ms,
                hatched=moves,
            )
            | {
                "width": [_THICK / of for *_, of in chosen],
                "offset": [_THICK * (track / of - 0.5) for _, track, of in chosen],
            }
        )
    tracks = max(of for _, (_, of) in placed)
    return figure(
        bars,
        "time (ms)",
        "",
        height=90 + max(38, 18 * tracks) * len(rows),
        xaxis={"range": [0, 1.01 * longest_ms]},
        yaxis={"type": "category", "categoryarray": [safe(row) for row in rows], "range": [len(rows) - 0.5, -0.5]},
        **_BARS,
    )


def chain(parts: Sequence[PlannedPart], units: Sequence[str], looks: Mapping[str, Style]) -> Figure:
    """Draw a model as its chain of parts, each as long as it has operators, with the bytes that cross at each cut.

    Args:
        parts: The parts.
        units: The device of each part.
        looks: The style of each device.
    """
    numbered = list(enumerate(zip(parts, units, strict=True), 1))
    bars = _bars(
        [part.stop - part.start for part in parts],
        [part.start for part in parts],
        ["model"] * len(parts),
        [looks[unit].colour for unit in units],
        [f"{number}: {unit}" for number, (_, unit) in numbered],
        [f"part {n}, operators {part.start} to {part.stop}, on {unit}" for n, (part, unit) in numbered],
        parts[-1].stop - parts[0].start,
    )
    marks = [
        {
            "x": part.start,
            "y": 1,
            "yref": "paper",
            "yanchor": "bottom",
            "text": safe(decimal(round(part.receive_bytes))),
            "showarrow": False,
            "font": {"size": 11},
        }
        for part in parts
        if part.receive_bytes
    ]
    return figure(
        [bars],
        "operators of the model, in order",
        "",
        height=150,
        annotations=marks,
        yaxis={"showticklabels": False, "ticks": ""},
        **_BARS,
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


def steps(names: Sequence[str], predicted_ms: Sequence[float | None], measured_ms: Sequence[float]) -> Figure:
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


def _bars(
    lengths: Sequence[float],
    begins: Sequence[float],
    rows: Sequence[str],
    colours: Sequence[str],
    labels: Sequence[str],
    hints: Sequence[str],
    axis: float,
    *,
    hatched: bool = False,
) -> Figure:
    """Return horizontal bars, in their colours or hatched with them; ``axis`` is how long the axis is."""
    pattern = {"shape": "/", "fillmode": "replace", "bgcolor": "#fff", "fgcolor": list(colours), "solidity": 0.3}
    # A white line parts bars that touch; it would hide a narrow one.
    edges = ["#fff" if length > _NARROW * axis else colour for length, colour in zip(lengths, colours, strict=True)]
    return {
        "type": "bar",
        "orientation": "h",
        "x": plain(lengths),
        "y": [safe(row) for row in rows],
        "base": plain(begins),
        "marker": {
            "color": list(colours),
            "line": {"color": list(colours) if hatched else edges, "width": 1},
            **({"pattern": pattern} if hatched else {}),
        },
        **({"insidetextfont": {"color": "#000"}} if hatched else {}),
        "text": [safe(label) for label in labels],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "hovertext": [safe(hint) for hint in hints],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
