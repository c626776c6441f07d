"""Pictures of who is busy when: plain values in, files out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pepper.report.figures import COLOURS, literal, save
from pepper.report.timelines import Busy, lanes, side_by_side

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_THICK = 0.8  # of the distance between two lines
_READABLE = 0.025  # of the width of the picture: a bar that has room for its number


def timelines(panels: Mapping[str, Sequence[Busy]], file: Path, time: str = "time (ms)") -> None:
    """Draw who is busy when, one panel below the other; transfers are hatched.

    Args:
        panels: Events by title; the first two share their lanes and their time axis.
        file: Where to write, as PNG and SVG.
        time: What the time axis shows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pair, *rest = [list(panels.values())[:2], *([shown] for shown in list(panels.values())[2:])]
    groups = [pair] * len(pair) + rest
    rows = [lanes(*group) for group in groups]
    devices = dict.fromkeys(event.device for shown in panels.values() for event in shown)
    colours = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(devices)}
    heights = [0.9 + 0.38 * len(lines) for lines in rows]
    figure = Figure(figsize=(8, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, (title, shown), lines, group in zip(axes, panels.items(), rows, groups, strict=True):
        panel.set_xlim(0, 1.01 * max(event.stop_ms for events in group for event in events))
        panel.set_ylim(len(lines) - 0.5, -0.5)
        panel.set_yticks(range(len(lines)), [literal(lane) for lane in lines])
        panel.tick_params(labelsize=8)
        panel.grid(visible=True, alpha=0.25)
        panel.set_axisbelow(True)
        panel.set_title(literal(title), fontsize=9)
        _draw(panel, shown, lines, colours)
    axes[-1].set_xlabel(time, fontsize=9)
    save(figure, file)


def _draw(panel: "Axes", events: Sequence[Busy], rows: Sequence[str], colours: Mapping[str, str]) -> None:
    """Draw the bars; where there are several requests, with their numbers."""
    several = len({event.request for event in events}) > 1
    width_ms = panel.get_xlim()[1]
    for event, (track, of) in zip(events, side_by_side(events), strict=True):
        middle = rows.index(event.lane) + _THICK * ((track + 0.5) / of - 0.5)
        colour = colours[event.device]
        panel.barh(
            middle,
            event.took_ms,
            left=event.start_ms,
            height=_THICK / of,
            color="white" if event.moves else colour,
            # A white line parts bars that touch; it would hide a narrow one.
            edgecolor="white" if event.took_ms > _READABLE * width_ms and not event.moves else colour,
            hatch="////" if event.moves else None,
            linewidth=0.5,
        )
        if several and event.took_ms > _READABLE * width_ms:
            panel.text(
                (event.start_ms + event.stop_ms) / 2,
                middle,
                str(event.request),
                ha="center",
                va="center",
                fontsize=7 if of < 3 else 5,
                bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"},
            )
