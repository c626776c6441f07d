"""``task=train``: learn from all that was measured, register the model with the evidence for it."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.console.progress import StepProgress, stepwise
from pepper.console.tables import show
from pepper.latency import collect, features
from pepper.latency.dataset import Rows
from pepper.latency.features import FEATURES
from pepper.latency.training import Report, Trained, report
from pepper.latency.training import train as train_model
from pepper.latency.tuning import TrialResult
from pepper.planning.latency_models import write_version
from pepper.report import notes
from pepper.report.learning import LatencyModelReport, section
from pepper.report.page import render
from pepper.report.training import draw, scores, scores_table
from pepper.tasks.result import Registered
from pepper.tracking import views
from pepper.tracking.abandoned import close_abandoned
from pepper.tracking.history import history
from pepper.tracking.registry import Registry
from pepper.tracking.runs import artifacts, figure_address
from pepper.tracking.store import Store
from pepper.tracking.trainings import Dataset, Training, TrialRecord, log_training

if TYPE_CHECKING:
    import pandas as pd


def train(composition: Composition) -> Registered:
    """Train, evaluate, log and register.

    Raises:
        LatencyError: There is too little to learn from.
        TrackingError: The store does not answer.
    """
    config = composition.config
    quiet = config.output == "quiet"
    profiles = Store(config.tracking)
    collected = collect.collect(history(profiles), profiles.folder / "cache", stepwise("describe", quiet))
    rows = collected.rows
    models, devices, loads = (len(np.unique(getattr(rows, by))) for by in ("model", "device", "load"))
    show(f"{len(rows)} measurements of {models} models on {devices} devices under {loads} loads")
    for reason, count in collected.left_out.items():
        show(f"left out {count}: {reason}")
    with StepProgress(config.tuning.trials, quiet) as progress:
        trained = train_model(
            rows,
            config.tuning,
            profiles.folder / "tuning.db",
            config.latency.test_fraction,
            _telling(progress),
        )
    evidence = report(rows, trained.tuned.hyperparameters, track=stepwise("leave out models, devices, loads", quiet))
    store = Store(replace(config.tracking, experiment=config.latency.experiment))
    close_abandoned(store)
    views.offer(store, views.TRAININGS)
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), rows, trained, evidence)
        run_id = log_training(store, _training(Path(folder), config, rows, trained, evidence))
    registry = Registry(store, config.latency.registered_model)
    facts = {
        "features_digest": features.digest(),
        "dataset_digest": rows.digest,
        "rows": str(len(rows)),
        **{f"test_{key}": f"{value:.4g}" for key, value in trained.test_scores.items()},
    }
    champion = registry.champion()
    note = notes.version(
        registry.name,
        facts,
        scores(trained, evidence),
        None if champion is None else (champion, registry.tags(champion)),
        figure_address(run_id, "figures/predicted_against_measured.png"),
    )
    version = registry.register(run_id, facts, note)
    model = LatencyModelReport(registry.name, version, False, _predictions(rows, evidence), evidence.table)
    with artifacts(store, run_id) as attached:
        html = render(f"{registry.name} version {version}", f"training run {run_id}", [section(model)])
        (attached / "report.html").write_text(html, encoding="utf-8")
    show(
        scores_table(trained, evidence),
        test=trained.test_scores,
        held_out=evidence.table.to_dict("records"),
        noise=evidence.noise,
    )
    show(
        f"version {version} of {registry.name} is registered; task=promote compares it with the champion",
        version=version,
        registered_model=registry.name,
        run_id=run_id,
    )
    return Registered(version=version, run_id=run_id)


def _telling(progress: StepProgress) -> Callable[[TrialResult], None]:
    """Return what counts a trial that ends; those of an earlier run count no more."""
    told: list[int] = []

    def ended(trial: TrialResult) -> None:
        if not told:
            progress.skip(trial.number)
        told.append(trial.number)
        outcome = "given up" if trial.error is None else f"mean error {trial.error:.2%}"
        progress.advance(f"trial {trial.number + 1}", outcome)

    return ended


def _training(folder: Path, config: PepperConfig, rows: Rows, trained: Trained, evidence: Report) -> Training:
    """Return what is logged of a training."""
    metrics = {f"test_{key}": value for key, value in trained.test_scores.items()}
    metrics |= {"cv_mape": trained.tuned.error, "noise_floor": evidence.noise}
    for line in evidence.table.to_dict("records"):
        where = f"{str(line['predictor']).replace(' ', '_')}_by_{line['held_out']}"
        metrics |= {
            f"{where}_{key}": float(line[key])
            for key in ("mape", "median_error", "spearman", "fastest_picked", "outside")
        }
    return Training(
        name=f"{config.latency.registered_model} on {len(rows)} rows",
        params={
            **asdict(trained.tuned.hyperparameters),
            "trials": len(trained.tuned.trials),
            "features": len(FEATURES),
            "train_rows": len(trained.train),
            "test_rows": len(trained.test),
            "test_models": " ".join(np.unique(trained.test.model))[:500],
        },
        metrics={key: value for key, value in metrics.items() if np.isfinite(value)},
        trials=[
            TrialRecord(
                trial.number, trial.error is not None, trial.params, {"mape": trial.error} if trial.error else {}
            )
            for trial in trained.tuned.trials
        ],
        dataset=Dataset("profiles", rows.digest, "dataset/rows.parquet", list(FEATURES), len(rows)),
        note=f"**{metrics['test_mape']:.1%}** mean error on {len(trained.test)} held-out rows",
        artifacts=folder,
    )


def _write(folder: Path, rows: Rows, trained: Trained, evidence: Report) -> None:
    """Write the model, its datasets, tables and figures."""
    write_version(folder, trained.model, rows, trained.train, trained.test)
    evidence.table.to_csv(folder / "scores.csv", index=False)
    _predictions(rows, evidence).to_csv(folder / "predictions.csv", index=False)
    draw(folder / "figures", rows, trained, evidence)


def _predictions(rows: Rows, evidence: Report) -> "pd.DataFrame":
    """Return each row with what was predicted of it, once for every way of leaving out."""
    table = collect.to_frame(rows)[["model", "part", "device", "load", "p50_ms"]]
    for by, predicted in evidence.predictions.items():
        table = table.assign(
            **{f"predicted_without_{by}_ms": predicted, f"error_without_{by}": predicted / rows.p50_ms - 1}
        )
    return table
