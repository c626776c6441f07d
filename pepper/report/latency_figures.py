"""Pictures of latency models: plain values in, files out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pepper.report.figures import COLOURS, MARKERS, literal, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_LISTED = 25


def predicted_against_measured(
    measured_ms: Sequence[float], predicted_ms: Sequence[float], groups: Sequence[str], file: Path
) -> None:
    """Draw each prediction against what was measured, coloured by group, with lines at 10 % off."""
    figure, panel = one_panel(5.6, 5.2)
    listed = sorted(set(groups))
    for index, name in enumerate(listed):
        of = [row for row, group in enumerate(groups) if group == name]
        panel.plot(
            [measured_ms[row] for row in of],
            [predicted_ms[row] for row in of],
            linestyle="none",
            marker=MARKERS[index % len(MARKERS)],
            color=COLOURS[index % len(COLOURS)],
            markersize=3,
            alpha=0.6,
            label=literal(name) if len(listed) <= _MOST_LISTED else None,
        )
    ends = [min(measured_ms), max(measured_ms)]
    panel.plot(ends, ends, color="black", linewidth=0.8)
    for factor in (0.9, 1.1):
        panel.plot(ends, [factor * end for end in ends], color="black", linewidth=0.6, linestyle=":")
    panel.set(xscale="log", yscale="log", xlabel="measured median (ms)", ylabel="predicted median (ms)")
    panel.set_title(f"{len(measured_ms)} cells; dotted: 10 % off", fontsize=9)
    if len(listed) <= _MOST_LISTED:
        figure.legend(loc="outside right upper", frameon=False, fontsize=7)
    save(figure, file)


def error_by_group(errors: Mapping[str, Mapping[str, float]], floor: float, file: Path) -> None:
    """Draw the mean relative error of each model, device and load as bars, with the noise floor as a line.

    Args:
        errors: By what is grouped (``model``), by name, as fractions.
        floor: The noise floor; NaN draws none.
        file: Where to write.
    """
    worst = {by: sorted(values.items(), key=lambda item: -item[1])[:_MOST_LISTED] for by, values in errors.items()}
    most = max(len(values) for values in worst.values())
    figure, panels = _panels(len(worst), 11, max(2.5, 0.24 * most + 1))
    for panel, (by, values) in zip(panels, worst.items(), strict=True):
        panel.barh([literal(name) for name, _ in values], [100 * error for _, error in values], color=COLOURS[0])
        if floor == floor:
            panel.axvline(100 * floor, color="black", linestyle=":", linewidth=1)
        panel.set_title(f"by {by}{' (worst first)' if len(errors[by]) > _MOST_LISTED else ''}", fontsize=9)
        panel.set_xlabel("mean error, left out (%); dotted: noise")
        panel.tick_params(labelsize=7)
        panel.invert_yaxis()
    save(figure, file)


def load_curves(curves: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]], file: Path) -> None:
    """Draw latency against load, measured (points) and predicted (lines), a panel a model, a colour a device.

    Args:
        curves: By model, by device: load (%), measured and predicted median (ms), ascending by load.
        file: Where to write.
    """
    figure, panels = _panels(len(curves), max(4.5, 3.3 * len(curves)), 3.6)
    for panel, (model, devices) in zip(panels, curves.items(), strict=True):
        for index, (device, points) in enumerate(sorted(devices.items())):
            load, measured, predicted = zip(*points, strict=True)
            colour = COLOURS[index % len(COLOURS)]
            panel.plot(
                load,
                measured,
                linestyle="none",
                marker=MARKERS[index % len(MARKERS)],
                color=colour,
                label=literal(device),
            )
            panel.plot(load, predicted, color=colour, linewidth=1)
        panel.set(yscale="log", xlabel="load requested (%)")
        panel.set_title(literal(model), fontsize=9)
    panels[0].set_ylabel("median (ms); lines: predicted")
    panels[0].legend(frameon=False, fontsize=8)
    save(figure, file)


def importance(shares: Mapping[str, float], file: Path) -> None:
    """Draw the features that the trees' corrections rest on, greatest first."""
    top = list(shares.items())[:_MOST_LISTED]
    figure, panel = one_panel(6, max(2.5, 0.24 * len(top) + 1))
    panel.barh([name for name, _ in top], [100 * share for _, share in top], color=COLOURS[0])
    panel.set_xlabel("share of the gain of all splits (%)")
    panel.tick_params(labelsize=8)
    panel.invert_yaxis()
    save(figure, file)


def search_history(errors: Sequence[float | None], file: Path) -> None:
    """Draw the error of each trial and the best so far; pruned trials have none."""
    figure, panel = one_panel(6, 3.6)
    done = [(number, 100 * error) for number, error in enumerate(errors) if error is not None]
    best, so_far = float("inf"), []
    for number, error in done:
        best = min(best, error)
        so_far.append((number, best))
    panel.plot(*zip(*done, strict=True), linestyle="none", marker="o", markersize=4, color=COLOURS[5], label="trial")
    panel.plot(*zip(*so_far, strict=True), drawstyle="steps-post", color=COLOURS[1], label="best so far")
    panel.set(xlabel=f"trial ({len(errors) - len(done)} of {len(errors)} pruned)", ylabel="mean error over folds (%)")
    panel.set_yscale("log")
    panel.legend(frameon=False, fontsize=8)
    save(figure, file)


def _panels(count: int, width: float, height: float) -> "tuple[Figure, Any]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, count, squeeze=False)[0]
    for panel in panels:
        panel.grid(visible=True, alpha=0.25)
    return figure, panels


def one_panel(width: float, height: float) -> "tuple[Figure, Any]":
    """Return a figure of this size (inches) and its one panel."""
    figure, panels = _panels(1, width, height)
    return figure, panels[0]
