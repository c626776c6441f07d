"""Descriptions of runs and model versions, in Markdown: what a person reads first in MLflow's UI."""

from collections.abc import Mapping, Sequence
from typing import Any

from pepper.measure.noise import NoiseFloor

MOST_LINES = 30

Row = Mapping[str, Any]

_SCORES = {
    "mape": "mean error",
    "median_error": "median error",
    "within_10": "within 10 %",
    "fastest_picked": "fastest device picked",
}
_MARKUP = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]|#"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})


def safe(text: object) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    return " ".join(str(text).split()).translate(_MARKUP)


def table(header: Sequence[str], rows: Sequence[Sequence[object]], texts: int = 1) -> str:
    """Return a Markdown table whose columns after the first ``texts`` are aligned to the right."""
    rule = [":---"] * texts + ["---:"] * (len(header) - texts)
    lines = [header, rule, *([safe(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sweep(rows: Sequence[Row], failures: Sequence[str], noise: NoiseFloor | None, figure: str | None) -> str:
    """Describe a sweep: how its cells ended, its figure, the medians by load, and what failed.

    Args:
        rows: Results by column name, as in a sweep's ``results.csv``.
        failures: One line a cell that failed.
        noise: How far two measurements differ, where that was seen.
        figure: Where the UI finds the sweep's figure; None if there is none.
    """
    counts: dict[str, int] = {}
    for row in rows:
        verdict = str(row["verdict"] or row["status"])
        counts[verdict] = counts.get(verdict, 0) + 1
    paragraphs = ["**" + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + "**"]
    if figure:
        paragraphs.append(f"![median latency against load]({figure})")
    medians = _medians(rows)
    if medians:
        paragraphs += ["Median latency in ms; (x): not VALID.", medians]
    if noise:
        paragraphs.append(f"Noise floor: {noise}.")
    paragraphs.append(_list("Failed", failures))
    return "\n\n".join(filter(None, paragraphs))


def _list(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    more = [f"- and {len(items) - MOST_LINES} more"] if len(items) > MOST_LINES else []
    return "\n".join([f"{title}:\n", *(f"- {safe(item)}" for item in items[:MOST_LINES]), *more])


def _medians(rows: Sequence[Row]) -> str:
    """Return medians as a table, a line a model and device, a column a load."""
    measured = [row for row in rows if row.get("latency_p50_ms") is not None]
    loads = sorted({(row["load_percent"], row["load"]) for row in measured})
    lines: dict[tuple[str, str, int], dict[str, str]] = {}
    for row in measured:
        line = lines.setdefault((row["model"], row["device"], row["threads"]), {})
        median = f"{row['latency_p50_ms']:.3g}"
        line[row["load"]] = median if row["verdict"] == "VALID" else f"({median})"
    if not lines:
        return ""
    shown = sorted(lines.items())[:MOST_LINES]
    note = f"\n\n{len(shown)} of {len(lines)} lines; results.csv holds all." if len(lines) > len(shown) else ""
    return (
        table(
            ["model", "device", "threads", *(safe(load) for _, load in loads)],
            [[*key, *(line.get(load, "") for _, load in loads)] for key, line in shown],
            texts=2,
        )
        + note
    )


def version(
    name: str,
    facts: Mapping[str, str],
    scores: Sequence[Row],
    champion: tuple[int, Mapping[str, str]] | None,
    figure: str,
) -> str:
    """Describe a version of the latency model: what it can do, what changed since the champion, how to use it.

    Args:
        name: The registered model's name.
        facts: What is known of the version, by name; numbers as text.
        scores: One row a way of leaving out: ``held_out``, ``predictor``, and fractions.
        champion: The champion's version and its facts; None if there is none.
        figure: Where the UI finds the picture of its predictions.
    """
    number, before = champion or (None, {})
    changed = [
        (key.replace("_", " "), before.get(key, ""), value) for key, value in facts.items() if before.get(key) != value
    ]
    columns = [key for key in _SCORES if any(key in row for row in scores)]
    lines = [[row["held_out"], row["predictor"], *(_percent(row.get(key)) for key in columns)] for row in scores]
    since = (
        [f"Since the champion, version {number}:", table(["", f"version {number}", "this version"], changed)]
        if number is not None
        else ["There was no champion when this version was registered."]
    )
    return "\n\n".join(
        [
            "Errors where the models (devices, loads) of the cells were left out of the training:",
            table(["left out", "predictor", *(_SCORES[key] for key in columns)], lines, texts=2),
            *since,
            "To use it (set `MLFLOW_TRACKING_URI` to this store), or `python -m pepper.run task=predict`:",
            "```python\n"
            "from pathlib import Path; import mlflow; from pepper.latency.model import LatencyModel\n"
            f'folder = mlflow.artifacts.download_artifacts("models:/{name}@champion")\n'
            "prediction = LatencyModel.load(Path(folder)).predict(rows)  # pepper.latency.features.rows(...)\n"
            "```",
            f"![predictions against measurements]({figure})",
        ]
    )


def _percent(value: Any) -> str:
    return "" if value is None or value != value else f"{value:.1%}"
