"""The picture of a model as a chain of cuts: plain values in, a file out."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pepper.report.figures import COLOURS, literal, save


@dataclass(frozen=True)
class CutMark:
    """A cut, as it is drawn.

    Attributes:
        position: How many operators lie before it.
        crossing_bytes: Bytes of the tensors that cross it.
        tensors: The names of these tensors.
        chosen: Whether the model is split here.
    """

    position: int
    crossing_bytes: float
    tensors: Sequence[str]
    chosen: bool = False


def cut_chain(
    title: str,
    crossing_bytes: Sequence[float],
    cumulative_macs: Sequence[float],
    cuts: Sequence[CutMark],
    file: Path,
) -> None:
    """Draw what crosses each position of a model, its cuts, and the share of the MACs before them.

    Above: the bytes that cross between consecutive operators, a dot where there is a cut (hollow where
    several tensors cross). Below: the cumulative MACs. Chosen cuts run through both and are named, and the
    parts between them show their share of the MACs.

    Args:
        title: Names the model.
        crossing_bytes: Bytes that cross each position, shape (operators + 1,).
        cumulative_macs: MACs of the operators before each position, shape (operators + 1,).
        cuts: The cuts to mark.
        file: Where to write, as PNG and SVG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    positions, total = range(len(crossing_bytes)), cumulative_macs[-1]
    figure = Figure(figsize=(9.6, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    crossing, work = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))

    inner = slice(1, len(crossing_bytes) - 1)  # nothing crosses the two ends
    crossing.step(
        positions[inner],
        crossing_bytes[inner],
        where="mid",
        color="0.65",
        linewidth=1,
        label="every position",
    )
    for label, single in (("cut: one tensor crosses", True), ("cut: several tensors cross", False)):
        marks = [cut for cut in cuts if (len(cut.tensors) == 1) == single]
        if marks:
            crossing.plot(
                [cut.position for cut in marks],
                [cut.crossing_bytes for cut in marks],
                linestyle="none",
                marker="o",
                markersize=5,
                fillstyle="full" if single else "none",
                color=COLOURS[0],
                label=label,
            )
    work.plot(positions, cumulative_macs, color=COLOURS[2], linewidth=1.5)
    work.fill_between(positions, cumulative_macs, color=COLOURS[2], alpha=0.15, linewidth=0)

    chosen = sorted((cut for cut in cuts if cut.chosen), key=lambda cut: cut.position)
    for panel in (crossing, work):
        for cut in chosen:
            panel.axvline(cut.position, color=COLOURS[1], linewidth=1.2, linestyle="--", zorder=0)
    if chosen:
        edges = [0, *(cut.position for cut in chosen), len(crossing_bytes) - 1]
        for number, (start, end) in enumerate(pairwise(edges), 1):
            share = (cumulative_macs[end] - cumulative_macs[start]) / total if total else 0
            work.text(
                (start + end) / 2,
                0.97,
                f"part {number}\n{share:.0%} of MACs",
                transform=work.get_xaxis_transform(),
                ha="center",
                va="top",
                fontsize=8,
            )
    for cut in chosen:
        crossing.text(
            cut.position,
            0.02,
            f" {literal(_names(cut.tensors))}, {EngFormatter('B', places=1)(cut.crossing_bytes)}",
            transform=crossing.get_xaxis_transform(),
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=8,
            color=COLOURS[1],
        )
    crossing.set_title(f"{literal(title)}: {len(crossing_bytes) - 1} operators, {len(cuts)} cuts", fontsize=10)
    crossing.set_ylabel("crossing tensors (bytes)")
    crossing.set_yscale("log")
    crossing.yaxis.set_major_formatter(EngFormatter("B"))
    crossing.legend(fontsize=8, loc="best")
    crossing.grid(axis="y", color="0.92")
    work.set_ylabel("cumulative MACs")
    work.yaxis.set_major_formatter(EngFormatter())
    work.set_ylim(0, total * (1.35 if chosen else 1.05) or 1)  # room for the parts' names
    work.set_xlim(0, len(crossing_bytes) - 1)
    work.set_xlabel("operators before the position, in topological order")
    work.grid(axis="y", color="0.92")
    save(figure, file)


def _names(tensors: Sequence[str], longest: int = 28) -> str:
    name = tensors[0] if tensors else "nothing"
    short = name if len(name) <= longest else f"…{name[1 - longest :]}"
    return short if len(tensors) <= 1 else f"{short} and {len(tensors) - 1} more"
