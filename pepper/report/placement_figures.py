"""Pictures of plans: plain values in, files out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pepper.report.figures import COLOURS, MARKERS, log_scale, save
from pepper.report.latency_figures import one_panel


def tradeoff(front: Sequence[tuple[float, float]], others: Mapping[str, tuple[float, float]], file: Path) -> None:
    """Draw latency against throughput: the plans that no other beats in both, and others by name.

    Args:
        front: Latency (ms) and results a second of each; what others beat in these two is left out.
        others: The same by name.
        file: Where to write.
    """
    figure, axes = one_panel(6.4, 4.4)
    best = [point for point in front if not any(x <= point[0] and y >= point[1] for x, y in front if (x, y) != point)]
    latency_ms, per_second = zip(*sorted(best), strict=True)
    axes.step(latency_ms, per_second, where="post", color=COLOURS[0], linewidth=1)
    axes.plot(latency_ms, per_second, "o", color=COLOURS[0], label="Pareto front")
    for index, (name, (x, y)) in enumerate(others.items(), 1):
        axes.plot(
            x, y, MARKERS[index % len(MARKERS)], color=COLOURS[index % len(COLOURS)], fillstyle="none", label=name
        )
    axes.set(xlabel="predicted latency of one request (ms)", ylabel="predicted results a second")
    axes.legend(frameon=False, fontsize=8)
    save(figure, file)


def against_bandwidth(curves: Mapping[str, Sequence[float]], bandwidth: Sequence[float], unit: str, file: Path) -> None:
    """Draw a latency against the links' bandwidth, a line a way of placing, the first one in front.

    Args:
        curves: Latencies (ms) by name, one for each bandwidth; infinite where there is no plan.
        bandwidth: The bandwidths.
        unit: What they are, for the axis.
        file: Where to write.
    """
    figure, axes = one_panel(6.4, 4.4)
    for index, (name, values) in enumerate(curves.items()):
        axes.plot(
            bandwidth,
            values,
            color=COLOURS[index % len(COLOURS)],
            linewidth=2.5 if index == 0 else 1,
            linestyle="-" if index == 0 else "--",
            zorder=len(curves) - index,
            label=name,
        )
    log_scale(axes)
    axes.set(xscale="log", xlabel=unit, ylabel="predicted latency of one request (ms)")
    axes.legend(frameon=False, fontsize=8)
    save(figure, file)
