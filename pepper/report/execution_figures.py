"""Pictures of plans at work: plain values in, files out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pepper.report.figures import save
from pepper.report.placement_figures import Busy, draw_timeline


def timelines(panels: Mapping[str, Sequence[Busy]], file: Path) -> None:
    """Draw who was busy when, one panel below the other on the same lanes.

    Args:
        panels: Events by title; the first two share their time axis.
        file: Where to write, as PNG and SVG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lanes = list(dict.fromkeys(name for events in panels.values() for name, *_ in events))
    figure = Figure(figsize=(8, (0.7 + 0.35 * len(lanes)) * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for panel, (title, events) in zip(axes, panels.items(), strict=True):
        draw_timeline(panel, events, lanes)
        panel.set_title(title, fontsize=9)
    longest = max(panel.get_xlim()[1] for panel in axes[:2])
    for panel in axes[:2]:
        panel.set_xlim(0, longest)
    axes[-1].set_xlabel("time (ms)")
    save(figure, file)
