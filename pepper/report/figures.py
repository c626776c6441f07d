"""Pictures of profiles: plain values in, files out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Okabe and Ito's palette: told apart by colour-blind people too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def latency_against_load(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw the median latency against the load, a panel a model, a line a device.

    Bars are 95 % intervals; INVALID cells are hollow and off the line; cells without a figure are left out.

    Args:
        rows: Results by column name, as in a sweep's ``results.csv``.
        file: Where to write; its suffix (``.png``, ``.svg``) is the format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    measured = [row for row in rows if row.get("latency_p50_ms") is not None]
    models = sorted({row["model"] for row in measured})
    devices = sorted({(row["device"], row["threads"]) for row in measured})
    figure = Figure(figsize=(max(4.8, 3.6 * len(models)), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for panel, model in zip(panels, models, strict=True):
        for index, (device, threads) in enumerate(devices):
            points = sorted(
                (row for row in measured if (row["model"], row["device"], row["threads"]) == (model, device, threads)),
                key=lambda row: row["load_percent"],
            )
            style = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
            for trusted in (True, False):
                chosen = [row for row in points if (row["verdict"] == "VALID") == trusted]
                if not chosen:
                    continue
                middle = [row["latency_p50_ms"] for row in chosen]
                panel.errorbar(
                    [row["load_percent"] for row in chosen],
                    middle,
                    yerr=[
                        [m - row["latency_p50_low_ms"] for m, row in zip(middle, chosen, strict=True)],
                        [row["latency_p50_high_ms"] - m for m, row in zip(middle, chosen, strict=True)],
                    ],
                    label=f"{device} ({threads} threads)" if trusted else None,
                    linestyle="-" if trusted else "none",
                    fillstyle="full" if trusted else "none",
                    capsize=3,
                    markersize=5,
                    **style,
                )
        count = [row["samples"] for row in measured if row["model"] == model]
        panel.set_title(f"{model}\n{len(count)} cells, {min(count):.0f} to {max(count):.0f} samples each", fontsize=9)
        panel.set_xlabel("load requested (% of the device's cores)")
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(ScalarFormatter())
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.grid(visible=True, which="both", alpha=0.25)
    panels[0].set_ylabel("median latency (ms), 95 % interval")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(devices), frameon=False, fontsize=9)
    figure.savefig(file, dpi=130)
