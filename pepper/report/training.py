"""What a training shows: its scores as a table, and its pictures."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from pepper.latency.dataset import Rows
from pepper.latency.evaluation import by_group
from pepper.latency.features import COLUMN, Values
from pepper.latency.training import Report, Trained
from pepper.report import latency_figures as figures

_MOST_CURVES = 4


def draw(folder: Path, rows: Rows, trained: Trained, evidence: Report) -> None:
    """Draw the evidence for a version into a new folder."""
    folder.mkdir()
    predicted = evidence.evidence["model"].p50_ms
    errors = {
        by: {name: line["mape"] for name, line in groups.items()} for by, groups in by_group(rows, predicted).items()
    }
    figures.predicted_against_measured(
        rows.p50_ms.tolist(),
        predicted.tolist(),
        rows.groups("model").tolist(),
        folder / "predicted_against_measured",
    )
    figures.error_by_group(errors, evidence.noise, folder / "error_by_group")
    figures.load_curves(_curves(rows, predicted), folder / "load_curves")
    figures.search_history([t.error for t in trained.tuned.trials], folder / "search_history")
    if trained.model.importance:
        figures.importance(trained.model.importance, folder / "importance")


def _curves(rows: Rows, predicted: Values) -> dict[str, dict[str, list[tuple[float, float, float]]]]:
    """Latency against load of the models that were measured under the most loads."""
    load = rows.features[:, COLUMN["load_percent"]]
    curves: dict[str, dict[str, dict[float, tuple[float, float, float]]]] = {}
    models = rows.groups("model")
    largest = {str(model): rows.p50_ms[models == model].max() for model in np.unique(models)}
    whole = {model: rows.part[(models == model) & (rows.p50_ms == peak)][0] for model, peak in largest.items()}
    for index in np.flatnonzero([rows.part[i] == whole[str(models[i])] for i in range(len(rows))]).tolist():
        point = (float(load[index]), float(rows.p50_ms[index]), float(predicted[index]))
        curves.setdefault(str(models[index]), {}).setdefault(str(rows.device[index]), {})[point[0]] = point
    ranked = sorted(curves, key=lambda model: (-sum(map(len, curves[model].values())), model))[:_MOST_CURVES]
    return {
        model: {device: sorted(points.values()) for device, points in curves[model].items()} for model in sorted(ranked)
    }


def scores(trained: Trained, evidence: Report) -> list[dict[str, Any]]:
    """Return the scores on the test rows and of each predictor that was left without something."""
    return [
        {"held_out": "test", "predictor": "pepper", **trained.test_scores},
        *({str(key): value for key, value in line.items()} for line in evidence.table.to_dict("records")),
    ]


def scores_table(trained: Trained, evidence: Report) -> Table:
    """Return one line a way of leaving out."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("left out", "predictor"):
        table.add_column(name)
    columns = (
        "mape",
        "median_error",
        "within_5",
        "within_10",
        "within_20",
        "spearman",
        "fastest_picked",
        "outside",
        "inside",
    )
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for line in scores(trained, evidence):
        figures_of = [
            ""
            if line.get(key) is None or line[key] != line[key]
            else f"{line[key]:.3f}"
            if key == "spearman"
            else f"{line[key]:.1%}"
            for key in columns
        ]
        table.add_row(str(line["held_out"]), str(line["predictor"]), *figures_of)
    if evidence.noise == evidence.noise:
        table.add_row("", "noise floor", f"{evidence.noise:.1%}", *[""] * (len(columns) - 1))
    return table
