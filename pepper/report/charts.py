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
            "margin": {"l": 50, "r": 12, "t": 34, "b": 40},
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#1b1f24"},
            "paper_bgcolor": "#fff",
            "plot_bgcolor": "#fff",
            "legend": {"orientation": "h", "yanchor": "top", "y": -0.24, "x": 0},
            "hoverlabel": {"bgcolor": "#fff", "align": "left"},
            **layout,
            "xaxis": {**axis, "title": {"text": x}, **layout.get("xaxis", {})},
            "yaxis": {**axis, "title": {"text": y}, **layout.get("yaxis", {})},
        },
    }


def heading(text: str) -> Figure:
    """Return a figure's title."""
    return {"text": safe(text), "font": {"size": 14}, "x": 0, "xref": "paper", "y": 0.98, "yanchor": "top"}


def latency_by_load(model: str, cells: "pd.DataFrame", looks: Mapping[str, Style]) -> Figure:
    """Draw one model's latency against load: medians with intervals on a line, 95th percentiles as dashes.

    Args:
        model: Its name.
        cells: Its measured cells.
        looks: The style of each series.
    """
    data = []
    for series, rows in cells.groupby("series", sort=False):
        valid = rows["verdict"] == "VALID"
        data += _points(str(series), rows[valid].sort_values("load_percent"), looks[str(series)], x="load_percent")
        data += _points(str(series), rows[~valid], looks[str(series)], x="load_percent", trusted=False)
    return figure(
        data,
        "load requested (% of the device's cores)",
        "latency (ms)",
        title=heading(model),
        yaxis={"type": "log"},
    )


def devices_compared(cells: "pd.DataFrame", looks: Mapping[str, Style]) -> Figure:
    """Draw medians with intervals, a row a model, a marker a series; the slowest model at the top."""
    order = cells.groupby("model")["p50_ms"].min().sort_values().index
    data = []
    for series in looks:
        rows = cells[cells["series"] == series]
        for trusted in (True, False):
            chosen = rows[(rows["verdict"] == "VALID") == trusted]
            data += _points(series, chosen, looks[series], y="model", trusted=trusted, percentiles=False)
    return figure(
        data,
        "median latency (ms), 95 % interval",
        "",
        height=110 + 22 * len(order),
        xaxis={"type": "log"},
        yaxis={"type": "category", "categoryarray": [safe(model) for model in order]},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1, "x": 0},
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
        xaxis={"type": "log"},
        yaxis={"type": "log"},
    )


def _points(
    series: str,
    rows: "pd.DataFrame",
    look: Style,
    *,
    x: str = "p50_ms",
    y: str = "p50_ms",
    trusted: bool = True,
    percentiles: bool = True,
) -> list[Figure]:
    """Return a series' medians, with what is known of each point when it is pointed at."""
    if rows.empty:
        return []
    along = "error_y" if y == "p50_ms" else "error_x"
    line = trusted and x == "load_percent"
    shared = {"type": "scatter", "legendgroup": safe(series)}
    coordinates = {
        "x": plain(rows[x]),
        "y": plain(rows[y]) if y == "p50_ms" else [safe(name) for name in rows[y]],
    }
    medians = {
        **shared,
        **coordinates,
        "name": safe(series if trusted else f"{series}, not VALID"),
        "mode": "lines+markers" if line else "markers",
        "line": {"color": look.colour, "dash": look.dash, "width": 1.5},
        "marker": {
            "color": look.colour,
            "symbol": look.symbol if trusted else f"{look.symbol}-open",
            "size": 8,
        },
        along: {
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
    if not (percentiles and trusted and rows["p95_ms"].notna().any()):
        return [medians]
    tails = {
        **shared,
        "x": plain(rows[x]),
        "y": plain(rows["p95_ms"]),
        "name": safe(f"{series}, 95th percentile"),
        "showlegend": False,
        "mode": "markers",
        "marker": {
            "symbol": "line-ew-open",
            "size": 11,
            "color": look.colour,
            "line": {"width": 2, "color": look.colour},
        },
        "hovertemplate": "95th percentile %{y} ms<extra></extra>",
    }
    return [medians, tails]


def _hint(row: Mapping[Any, Any]) -> str:
    lines = [
        f"{row['model']}, {row['series']}, {row['load']}",
        f"median {row['p50_ms']:.4g} ms ({row['low_ms']:.4g} to {row['high_ms']:.4g})",
        f"95th percentile {row['p95_ms']:.4g} ms" if row["p95_ms"] == row["p95_ms"] else "",
        f"{row['samples']:.0f} samples, {row['verdict']}",
        str(row["reasons"])[:200],
    ]
    return "<br>".join(safe(line) for line in lines if line)
