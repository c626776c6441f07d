"""Interactive charts: tables in, Plotly figures (plain dictionaries) out."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from pepper.report.figures import COLOURS

if TYPE_CHECKING:
    import pandas as pd

Figure = dict[str, Any]

_SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_GRID = "#e6eaee"


@dataclass(frozen=True)
class Style:
    """How a series is drawn everywhere: told apart by colour, by marker and by line."""

    colour: str
    symbol: str
    dash: str


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Give each series its own style; the marker goes on where the colours begin again."""
    return {
        name: Style(
            COLOURS[i % len(COLOURS)], _SYMBOLS[(i + i // len(COLOURS)) % len(_SYMBOLS)], _DASHES[i % len(_DASHES)]
        )
        for i, name in enumerate(names)
    }


def safe(text: object) -> str:
    """Return a text that Plotly, which knows some markup, shows as it is."""
    return escape(str(text), quote=False)


def plain(values: Iterable[Any]) -> list[Any]:
    """Return numbers as JSON knows them: four significant digits, None for what is missing."""
    return [None if value is None or not math.isfinite(value) else float(f"{value:.4g}") for value in values]


def figure(data: list[Figure], x: str, y: str, *, height: int = 340, **layout: Any) -> Figure:
    """Return a figure with pepper's looks.

    Args:
        data: Plotly's traces.
        x: Title of the horizontal axis, with its unit.
        y: The same of the vertical one.
        height: In pixels.
        layout: Further settings; those of ``xaxis`` and ``yaxis`` are merged.
    """
    axis = {"gridcolor": _GRID, "linecolor": "#8c959f", "ticks": "outside", "automargin": True, "zeroline": False}
    return {
        "data": data,
        "layout": {
            "height": height,
            "margin": {"l": 50, "r": 12, "t": 30, "b": 40},
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#1b1f24"},
            "paper_bgcolor": "#fff",
            "plot_bgcolor": "#fff",
            "legend": {"orientation": "h", "yanchor": "bottom", "y": 1, "x": 0},
            "hoverlabel": {"bgcolor": "#fff", "align": "left"},
            **layout,
            "xaxis": {**axis, "title": {"text": x}, **layout.get("xaxis", {})},
            "yaxis": {**axis, "title": {"text": y}, **layout.get("yaxis", {})},
        },
    }


def log_axis(values: Iterable[float]) -> Figure:
    """Return a logarithmic axis with ticks that read 1, 2, 5, 10; more of them where the values lie close."""
    known = [value for value in values if value > 0 and math.isfinite(value)]
    if not known or max(known) < 1.5 * min(known):  # too close for such ticks: Plotly finds others
        return {"type": "log"}
    low, high = min(known), max(known)
    ratio = high / low
    if ratio > 1000:
        digits: tuple[float, ...] = (1,)
    elif ratio > 30:
        digits = (1, 2, 5)
    elif ratio > 3:
        digits = (1, 1.5, 2, 3, 5, 7)
    else:
        digits = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9)
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in digits]
    return {"type": "log", "tickvals": plain(ticks), "ticktext": [f"{tick:,.10g}" for tick in plain(ticks)]}


def latency_by_load(cells: "pd.DataFrame", looks: Mapping[str, Style]) -> Figure:
    """Draw one model's latency against load: medians with intervals on a line, 95th percentiles as dashes.

    Args:
        cells: The model's measured cells.
        looks: The style of each series.
    """
    data = []
    for series, look in looks.items():
        data += _series(series, cells[cells["series"] == series].sort_values("load_percent"), look, x="load_percent")
    return figure(
        data,
        "load requested (% of the device's cores)",
        "latency (ms)",
        xaxis={"range": [-4, 104], "dtick": 25},
        yaxis=log_axis(cells[["low_ms", "high_ms", "p95_ms"]].to_numpy().ravel()),
    )


def devices_compared(cells: "pd.DataFrame", looks: Mapping[str, Style]) -> Figure:
    """Draw medians with intervals, a row a model, a marker a series; the slowest model at the top."""
    order = cells.groupby("model")["p50_ms"].min().sort_values().index
    data = []
    for series, look in looks.items():
        data += _series(series, cells[cells["series"] == series], look, y="model", percentiles=False)
    return figure(
        data,
        "median latency (ms), 95 % interval",
        "",
        height=110 + 22 * len(order),
        xaxis=log_axis(cells[["low_ms", "high_ms"]].to_numpy().ravel()),
        yaxis={"type": "category", "categoryarray": [safe(model) for model in order]},
        margin={"l": 120, "r": 12, "t": 40, "b": 40},
    )


def predictions(rows: "pd.DataFrame", looks: Mapping[str, Style]) -> Figure:
    """Draw predicted against measured medians, with lines where they agree and where they are 10 % off.

    Args:
        rows: ``series``, ``model``, ``load``, ``measured_ms`` and ``predicted_ms``.
        looks: The style of each series.
    """
    ends = [float(rows["measured_ms"].min()), float(rows["measured_ms"].max())]
    data: list[Figure] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": plain(ends),
            "y": plain(factor * end for end in ends),
            "line": {"color": "#57606a", "width": 1, "dash": dash},
            "name": name,
            "hoverinfo": "skip",
        }
        for factor, dash, name in ((1, "solid", "equal"), (0.9, "dot", "10 % below"), (1.1, "dot", "10 % above"))
    ]
    for series, of in rows.groupby("series"):
        look = looks[str(series)]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": safe(series),
                "x": plain(of["measured_ms"]),
                "y": plain(of["predicted_ms"]),
                "marker": {"color": look.colour, "symbol": look.symbol, "size": 6, "opacity": 0.7},
                "text": [safe(f"{model}, {load}") for model, load in zip(of["model"], of["load"], strict=True)],
                "hovertemplate": "%{text}<br>measured %{x} ms, predicted %{y} ms",
            }
        )
    return figure(
        data,
        "measured median (ms)",
        "predicted median (ms)",
        height=480,
        xaxis=log_axis(rows["measured_ms"]),
        yaxis=log_axis(rows["predicted_ms"]),
    )


def _series(
    name: str,
    rows: "pd.DataFrame",
    look: Style,
    *,
    x: str = "p50_ms",
    y: str = "p50_ms",
    percentiles: bool = True,
) -> list[Figure]:
    """Return a series' medians, hollow where they are not VALID, and its 95th percentiles; one legend entry."""
    valid = rows["verdict"] == "VALID"
    data = [_medians(rows[chosen], look, x, y, trusted) for chosen, trusted in ((valid, True), (~valid, False))]
    tails = rows[valid & rows["p95_ms"].notna()]
    if percentiles and len(tails):
        data.append(
            {
                "x": plain(tails[x]),
                "y": plain(tails["p95_ms"]),
                "mode": "markers",
                "marker": {
                    "symbol": "line-ew-open",
                    "size": 11,
                    "color": look.colour,
                    "line": {"width": 2, "color": look.colour},
                },
                "hovertemplate": "95th percentile %{y} ms<extra></extra>",
            }
        )
    shared = {"type": "scatter", "name": safe(name), "legendgroup": safe(name)}
    drawn = [trace for trace in data if trace["x"]]
    return [{**shared, "showlegend": index == 0, **trace} for index, trace in enumerate(drawn)]


def _medians(rows: "pd.DataFrame", look: Style, x: str, y: str, trusted: bool) -> Figure:
    """Return medians with their intervals, and what is known of each when it is pointed at."""
    return {
        "x": plain(rows[x]),
        "y": plain(rows[y]) if y == "p50_ms" else [safe(name) for name in rows[y]],
        "mode": "lines+markers" if trusted and x == "load_percent" else "markers",
        "line": {"color": look.colour, "dash": look.dash, "width": 1.5},
        "marker": {"color": look.colour, "symbol": look.symbol if trusted else f"{look.symbol}-open", "size": 8},
        "error_y" if y == "p50_ms" else "error_x": {
            "type": "data",
            "symmetric": False,
            "array": plain(rows["high_ms"] - rows["p50_ms"]),
            "arrayminus": plain(rows["p50_ms"] - rows["low_ms"]),
            "color": look.colour,
            "thickness": 1.2,
            "width": 3,
        },
        "text": [_hint(row) for row in rows.to_dict("records")],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _hint(row: Mapping[Any, Any]) -> str:
    lines = [
        f"{row['model']}, {row['series']}, {row['load']}",
        f"median {row['p50_ms']:.4g} ms ({row['low_ms']:.4g} to {row['high_ms']:.4g})",
        f"95th percentile {row['p95_ms']:.4g} ms" if row["p95_ms"] == row["p95_ms"] else "",
        f"{row['samples']:.0f} samples, {row['verdict']}",
        str(row["reasons"])[:200],
    ]
    return "<br>".join(safe(line) for line in lines if line)
