"""Pictures of profiles: plain values in, files out."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by colour-blind people too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
COLUMNS = 3

Row = Mapping[str, Any]


def literal(text: str) -> str:
    """Return a text that matplotlib, to which dollar signs mean mathematics, shows as it is."""
    return text.replace("$", r"\$")


def save(figure: "Figure", file: Path) -> None:
    """Write a figure as PNG, for the screen, and as SVG, for print and for editing.

    Args:
        figure: What was drawn.
        file: Where to write; each format has its own suffix.
    """
    with warnings.catch_warnings():  # a name in a script that the font lacks, or too long to fit: the tables have it
        warnings.simplefilter("ignore", UserWarning)
        for suffix in (".png", ".svg"):
            figure.savefig(file.with_suffix(suffix), dpi=130)


def latency(rows: Sequence[Row], file: Path) -> None:
    """Draw median latencies with 95 % intervals, a line a device; INVALID cells are hollow and off the line.

    Against the load in a panel a model, where loads differ; else against the model in one panel. Cells
    without a figure are left out.

    Args:
        rows: Results by column name, as in a sweep's ``results.csv``; at least one with a figure.
        file: Where to write, as PNG and SVG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    measured = [row for row in rows if row.get("latency_p50_ms") is not None]
    fastest: dict[str, float] = {}
    for row in measured:
        name = _device(row)
        fastest[name] = min(fastest.get(name, row["latency_p50_ms"]), row["latency_p50_ms"])
    devices = sorted(fastest, key=lambda name: fastest[name])
    models = sorted({row["model"] for row in measured})
    by_load = len({row["load_percent"] for row in measured}) > 1
    titles = models if by_load else [f"load {measured[0]['load']}"]
    columns = min(COLUMNS, len(titles))
    lines = -(-len(titles) // columns)
    figure = Figure(
        figsize=(4.2 * columns if by_load else 2 + 0.9 * len(models), 0.8 + 3.2 * lines), layout="constrained"
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for panel in panels.flat[len(titles) :]:
        panel.set_visible(False)
    for panel, title in zip(panels.flat, titles, strict=False):
        chosen = [row for row in measured if not by_load or row["model"] == title]
        for index, device in enumerate(devices):
            points = [row for row in chosen if _device(row) == device]
            if by_load:
                places = {id(row): float(row["load_percent"]) for row in points}
            else:
                places = {id(row): float(models.index(row["model"])) for row in points}
            points.sort(key=lambda row: places[id(row)])
            for trusted in (True, False):
                drawn = [row for row in points if (row["verdict"] == "VALID") == trusted]
                x = [places[id(row)] for row in drawn]
                _draw(
                    panel,
                    x,
                    drawn,
                    f"{literal(device)}{'' if trusted else ', INVALID'}",
                    index,
                    line=by_load and trusted,
                )
        counts = [round(row["samples"]) for row in chosen]
        samples = " to ".join(map(str, sorted({min(counts), max(counts)})))
        panel.set_title(f"{literal(title)}: {len(counts)} cells, {samples} samples each", fontsize=9)
        if by_load:
            panel.set_xlabel("load requested (% of the device's cores)")
        else:
            panel.set_xticks(range(len(models)), [literal(model) for model in models], rotation=30, ha="right")
            panel.set_xlabel("model")
        log_scale(panel)
    for panel in panels[:, 0]:
        panel.set_ylabel("median latency (ms), 95 % interval")
    legend = {
        label: handle for panel in panels.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        legend.values(),
        legend.keys(),
        loc="outside lower center",
        ncols=max(1, int(figure.get_figwidth() // 2.3)),
        frameon=False,
        fontsize=9,
    )
    save(figure, file)


def _device(row: Row) -> str:
    return f"{row['device']} ({row['threads']} thread{'s' if row['threads'] > 1 else ''})"


def _draw(panel: "Axes", x: list[float], rows: Sequence[Row], label: str, index: int, *, line: bool) -> None:
    if not rows:
        return
    middle = [row["latency_p50_ms"] for row in rows]
    panel.errorbar(
        x,
        middle,
        yerr=[
            [m - row["latency_p50_low_ms"] for m, row in zip(middle, rows, strict=True)],
            [row["latency_p50_high_ms"] - m for m, row in zip(middle, rows, strict=True)],
        ],
        label=label,
        linestyle="-" if line else "none",
        fillstyle="none" if label.endswith("INVALID") else "full",
        capsize=3,
        markersize=5,
        color=COLOURS[index % len(COLOURS)],
        marker=MARKERS[index % len(MARKERS)],
    )


def log_scale(panel: "Axes") -> None:
    """Make the vertical axis logarithmic, with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.grid(visible=True, alpha=0.3)
