"""Sections of the report about the latency model: predictions against measurements, versions, champions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pepper.report import charts
from pepper.report.page import Block, Chart, Facts, Section, Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class LatencyModelReport:
    """A version of the latency model and the evidence for it.

    Attributes:
        name: The registered model's name.
        version: Its version; None on the page of a training, which is not registered yet.
        champion: Whether it is the one in use.
        predictions: One row a cell: ``model``, ``device``, ``load``, ``p50_ms`` and ``predicted_without_model_ms``.
        scores: One row a way of leaving out: ``held_out``, ``predictor`` and fractions such as ``mape``.
        promotions: When, which version, by whom and why; oldest first.
    """

    name: str
    version: int | None
    champion: bool
    predictions: "pd.DataFrame"
    scores: "pd.DataFrame | None" = None
    promotions: Sequence[Sequence[str]] = ()


def section(model: LatencyModelReport) -> Section:
    """Return the section about the latency model."""
    rows = model.predictions.rename(
        columns={"device": "series", "p50_ms": "measured_ms", "predicted_without_model_ms": "predicted_ms"}
    )
    rows = rows[(rows["measured_ms"] > 0) & (rows["predicted_ms"] > 0)]
    blocks: list[Block] = []
    if len(rows):
        error = (rows["predicted_ms"] / rows["measured_ms"] - 1).abs()
        blocks += [
            "Each cell is predicted by a model that was trained without any measurement of that cell's model: what to"
            " expect of a model that pepper has never seen.",
            Facts(
                {
                    "latency model": model.name if model.version is None else f"{model.name} version {model.version}",
                    **({} if model.version is None else {"role": "champion" if model.champion else "not the champion"}),
                    "cells": f"{len(rows):,}",
                    "mean error": f"{error.mean():.1%}",
                    "median error": f"{error.median():.1%}",
                    "within 10 %": f"{(error <= 0.1).mean():.0%}",
                }
            ),
            Chart(
                charts.predictions(rows, charts.styles(sorted(rows["series"].astype(str).unique()))),
                f"{len(rows):,} cells of {rows['model'].nunique()} models, each predicted without its own model",
            ),
        ]
        blocks += [_by_group(rows, by) for by in ("model", "series") if "inside_without_model" in rows]
    if model.scores is not None:
        blocks.append(_scores(model.scores))
    if model.promotions:
        blocks.append(Table("Champions", ["when", "version", "by", "why"], model.promotions))
    return Section("Prediction against measurement", blocks)


def _by_group(rows: "pd.DataFrame", by: str) -> Table:
    """Errors of each model or device, and how often the interval held."""
    error = 100 * (rows["predicted_ms"] / rows["measured_ms"] - 1).abs()
    told = rows.assign(error=error, inside=100 * rows["inside_without_model"]).groupby(by)[["error", "inside"]]
    median, mean, cells = told.median()["error"].round(1), told.mean().round(1), told.size()
    what = "device" if by == "series" else by
    return Table(
        f"By {what}, each cell predicted without its model",
        [what, "cells", "median error %", "mean error %", "inside the 90 % interval, % of cells"],
        [[name, int(cells[name]), median[name], *mean.loc[name]] for name in median.index],
    )


def _scores(scores: "pd.DataFrame") -> Table:
    """Errors in percent, by what was left out of the training."""
    wanted = {
        "mape": "mean error %",
        "median_error": "median error %",
        "within_10": "within 10 %, % of cells",
        "fastest_picked": "fastest device picked, %",
    }
    columns = [name for name in wanted if name in scores]
    rows = [
        [str(line["held_out"]), str(line["predictor"]), *charts.plain(100 * line[name] for name in columns)]
        for line in scores.to_dict("records")
    ]
    return Table(
        "Errors of predictors, each trained without the cells of the model, device or load that it predicts",
        ["left out", "predictor", *(wanted[name] for name in columns)],
        rows,
    )
