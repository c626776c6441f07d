"""Train the latency model that pepper ships: ``python -m benchmarks.shipped_model``, about a minute.

It learns from ``pepper/latency/shipped/cells.csv``, the VALID cells that one machine measured, and writes the model,
the rows it learned from and its data sheet beside them. After cells were measured anew (``task=profile
+sweep=parts``), ``--measured FOLDER`` writes those of that store's folder first.
"""

import argparse
import json
import tempfile
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import composed
from pepper.config import TuningConfig
from pepper.latency import collect, features
from pepper.latency.dataset import Rows
from pepper.latency.description import PARAM
from pepper.latency.evaluation import repeats, scores
from pepper.latency.features import SETTING
from pepper.latency.training import Report, Trained, report, train
from pepper.measure.noise import floor_of
from pepper.names import PARAMS
from pepper.planning.shipped import FOLDER
from pepper.tracking.history import history
from pepper.tracking.registry import MODEL_FOLDER
from pepper.tracking.store import Store

if TYPE_CHECKING:
    import pandas as pd

CELLS = FOLDER / "cells.csv"
MACHINE = ("device_cpu_model", "provider", "threads")
_KEPT = [
    *("status", "verdict", "ended_ms", "metrics.latency_p50_ms", "metrics.latency_p95_ms"),
    *(
        f"params.{name}"
        for name in dict.fromkeys((*PARAMS, "input_shapes", "device", "load", *MACHINE, *SETTING, PARAM))
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, help="folder of a store whose VALID cells are taken first")
    parser.add_argument("--trials", type=int, default=10, help="of the search for hyperparameters")
    options = parser.parse_args()
    if options.measured:
        write_cells(options.measured)
    ship(options.trials, FOLDER)


def write_cells(store: Path) -> None:
    """Keep of a store's VALID cells what a latency model learns from, and no path of that machine."""
    measured = f"tracking.uri=sqlite:///{store.absolute()}/mlflow.db"
    cells = collect.trusted(history(Store(composed(measured, f"tracking.folder={store}").tracking)))
    cells = cells[[name for name in _KEPT if name in cells]].sort_values("ended_ms", kind="stable")
    cells.assign(**{"params.model_path": cells["params.family_path"]}).to_csv(CELLS, index=False)


def read_cells() -> "pd.DataFrame":
    """Return the cells as `pepper.tracking.history.history` does."""
    import pandas as pd

    numbers = dict.fromkeys(_KEPT[2:5], float)
    texts = {name: str for name in _KEPT if name not in numbers}
    return pd.read_csv(CELLS, dtype={**texts, **numbers})


def ship(trials: int, folder: Path) -> None:
    """Train, and write what pepper ships."""
    cells = read_cells()
    with tempfile.TemporaryDirectory() as scratch:
        rows = collect.collect(cells, Path(scratch)).rows
        trained = train(rows, TuningConfig(trials=trials, folds=5), Path(scratch) / "tuning.db")
    evidence = report(rows, trained.tuned.hyperparameters)
    trained.model.save(folder / MODEL_FOLDER)
    for name, part in (("train", trained.train), ("test", trained.test)):
        collect.write(part, folder / "dataset" / f"{name}.parquet")
    names = {name: rows.groups("model") if name == "model" else getattr(rows, name) for name in ("model", "part")}
    predicted = collect.to_frame(rows)[["device", "load", "p50_ms"]].assign(
        **names,
        predicted_without_model_ms=evidence.evidence["model"].p50_ms,
        inside_without_model=evidence.evidence["model"].inside,
    )
    predicted.to_csv(folder / "predictions.csv", index=False, float_format="%.6g")
    (folder / "tags.json").write_text(json.dumps(tags(rows, trained, evidence), indent=1) + "\n")
    (folder / "README.md").write_text(sheet(cells, rows, trained, evidence))
    print((folder / "README.md").read_text())


def tags(rows: Rows, trained: Trained, evidence: Report) -> dict[str, str]:
    """Return what a registered version would say of itself."""
    noise = floor_of(repeats(rows))
    left_out = scores(rows.p50_ms, evidence.evidence["model"].p50_ms)
    return {
        "features_digest": features.digest(),
        "dataset_digest": rows.digest,
        "rows": str(len(rows)),
        "models": str(len(np.unique(rows.group))),
        "devices": ", ".join(np.unique(rows.device)),
        "left_out_median_error": f"{left_out['median_error']:.4g}",
        **{f"test_{key}": f"{value:.4g}" for key, value in trained.test_scores.items()},
        **({key: f"{value:.4g}" for key, value in noise.metrics().items()} if noise else {}),
    }


def sheet(cells: "pd.DataFrame", rows: Rows, trained: Trained, evidence: Report) -> str:
    """Return the data sheet."""
    predicted = evidence.evidence["model"].p50_ms
    interval = trained.model.interval
    wider = ", ".join(f"{1 + times:.1f} times for {name}" for name, times in interval.wider.items())
    seen = {name: ", ".join(sorted(cells[f"params.{name}"].dropna().unique())) for name in MACHINE}
    lines = [
        "# The latency model that pepper ships",
        "",
        "It answers where the registry has no champion. Made by `python -m benchmarks.shipped_model` from `cells.csv`.",
        "",
        f"- Learned from: {len(rows)} VALID cells of **one machine** ({seen['device_cpu_model']}, {seen['provider']},"
        f" threads {seen['threads']}); {len(trained.train)} to train on, {len(trained.test)} kept for the test.",
        f"- Devices: {', '.join(np.unique(rows.device))}, shares of one of its cores. No GPU, no other machine.",
        f"- Loads: {', '.join(np.unique(rows.load))}.",
        f"- Models, and parts of them: {', '.join(np.unique(rows.groups('model')))}. All are CNNs in fp32.",
        f"- 90 % interval: {interval.low:.2f} to {interval.high:.2f} times the prediction for a model that is left out;"
        f" wider, in logarithms, where something is wholly new: {wider}.",
        "- Error by left-out machine: there is one machine, so it is not known.",
        "",
        "Error, each model left out in turn; `inside` is the share within the interval that the others give:",
        "",
        "| left-out model | cells | median error | mean error | inside |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in (*np.unique(rows.groups("model")), None):
        of = rows.groups("model") == name if name else np.ones(len(rows), bool)
        error, inside = scores(rows.p50_ms[of], predicted[of]), evidence.evidence["model"].inside[of].mean()
        figures = f"{error['median_error']:.1%} | {error['mape']:.1%} | {inside:.0%}"
        lines.append(f"| {name or 'all'} | {of.sum()} | {figures} |")
    lines += [
        "",
        "By what was left out, beside the references on the same rows:",
        "",
        "| left out | predictor | median |",
    ]
    lines.append("|---|---|---:|")
    lines += [
        f"| {line['held_out']} | {line['predictor']} | {line['median_error']:.1%} |"
        for line in evidence.table.to_dict("records")
    ]
    return "\n".join(
        [*(line if line.startswith("|") else fill(line, 120, subsequent_indent="  ") for line in lines), ""]
    )


if __name__ == "__main__":
    main()
