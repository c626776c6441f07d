"""``task=train``: learn from all that was measured, register the model with the evidence for it."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pepper.config.composing import Composition
from pepper.console.progress import StepProgress, stepwise
from pepper.console.tables import show
from pepper.hosts import reach
from pepper.latency import collect, features
from pepper.latency.dataset import Rows
from pepper.latency.evaluation import repeats
from pepper.latency.features import FEATURES
from pepper.latency.training import Report, Trained, report
from pepper.latency.training import train as train_model
from pepper.latency.tuning import TrialResult
from pepper.measure.noise import floor_of
from pepper.planning.latency_models import write_version
from pepper.planning.scoring_away import scorers_on
from pepper.report import notes
from pepper.report.learning import LatencyModelReport, section
from pepper.report.page import render
from pepper.report.training import draw, scores, scores_table
from pepper.tasks.posting import flush_before
from pepper.tasks.result import TRAINING, Registered
from pepper.tracking import views
from pepper.tracking.abandoned import close_abandoned
from pepper.tracking.history import history
from pepper.tracking.posting import log
from pepper.tracking.record import RUN_ID, Child, Dataset, NewVersion, Record
from pepper.tracking.registry import Registry
from pepper.tracking.runs import figure_address
from pepper.tracking.store import Store

if TYPE_CHECKING:
    import pandas as pd


def train(composition: Composition) -> Registered:
    """Train, evaluate, log and register.

    Raises:
        LatencyError: There is too little to learn from.
        TrackingError: The store does not answer.
    """
    config = composition.config
    reach.use(config.hosts)
    quiet = config.is_quiet
    profiles = Store(config.tracking)
    store = Store(replace(config.tracking, experiment=config.latency.experiment))  # which fails now, if it does
    registry = Registry(store, config.latency.registered_model)
    champion = registry.champion()
    before = None if champion is None else (champion, registry.tags(champion))
    collected = collect.collect(history(profiles), profiles.folder / "cache", stepwise("describe", quiet))
    rows = collected.rows
    models, devices, loads = (len(np.unique(rows.groups(by))) for by in ("model", "device", "load"))
    show(f"{len(rows)} measurements of {models} models on {devices} devices under {loads} loads")
    for reason, count in collected.left_out.items():
        show(f"left out {count}: {reason}")
    flush_before(store)  # an older version is registered before a newer one
    close_abandoned(store)
    views.offer(store, views.TRAININGS)
    with StepProgress(config.tuning.trials, quiet) as progress:
        trained = train_model(
            rows,
            config.tuning,
            profiles.folder / "tuning.db",
            config.latency.test_fraction,
            _telling(progress),
            partial(scorers_on, config.tuning.hosts),
        )
    evidence = report(rows, trained.tuned.hyperparameters, track=stepwise("leave out models, devices, loads", quiet))
    facts = {
        "features_digest": features.digest(),
        "dataset_digest": rows.digest,
        "rows": str(len(rows)),
        **{f"test_{key}": f"{value:.4g}" for key, value in trained.test_scores.items()},
    }
    if noise := floor_of(repeats(rows)):
        facts |= {key: f"{value:.4g}" for key, value in noise.metrics().items()}
    picture = figure_address(RUN_ID, "figures/predicted_against_measured.png")
    note = notes.version(registry.name, facts, scores(trained, evidence), before, picture)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write(folder, registry.name, rows, trained, evidence)
        record = _record(folder, registry.name, rows, trained, evidence)
        done = log(store, replace(record, version=NewVersion(registry.name, facts, note)), "what was learned")
    show(
        scores_table(trained, evidence),
        test=trained.test_scores,
        held_out=evidence.table.to_dict("records"),
        noise=evidence.noise,
    )
    show(
        f"version {done.version} of {registry.name} is registered; task=promote compares it with the champion",
        version=done.version,
        registered_model=registry.name,
        run_id=done.run_id,
    )
    return Registered.of(done)


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


def _record(folder: Path, name: str, rows: Rows, trained: Trained, evidence: Report) -> Record:
    """Return what is logged of a training."""
    metrics = {f"test_{key}": value for key, value in trained.test_scores.items()}
    metrics |= {"cv_mape": trained.tuned.error, "noise_floor": evidence.noise}
    for line in evidence.table.to_dict("records"):
        where = f"{str(line['predictor']).replace(' ', '_')}_by_{line['held_out']}"
        metrics |= {
            f"{where}_{key}": float(line[key])
            for key in ("mape", "median_error", "spearman", "fastest_picked", "outside", "inside")
        }
    return Record(
        kind=TRAINING,
        name=f"{name} on {len(rows)} rows",
        params={
            **asdict(trained.tuned.hyperparameters),
            "trials": len(trained.tuned.trials),
            "features": len(FEATURES),
            "train_rows": len(trained.train),
            "test_rows": len(trained.test),
            "test_models": " ".join(np.unique(trained.test.groups("model")))[:500],
        },
        metrics=metrics,
        children=tuple(_trial(trial) for trial in trained.tuned.trials),
        dataset=Dataset("profiles", rows.digest, "dataset/rows.parquet", FEATURES, len(rows)),
        note=f"**{metrics['test_mape']:.1%}** mean error on {len(trained.test)} held-out rows",
        artifacts=folder,
    )


def _trial(trial: TrialResult) -> Child:
    return Child(
        kind="trial",
        name=f"trial {trial.number}",
        status="KILLED" if trial.error is None else "FINISHED",
        params=trial.params,
        metrics={"mape": trial.error} if trial.error else {},
    )


def _write(folder: Path, name: str, rows: Rows, trained: Trained, evidence: Report) -> None:
    """Write the model, its datasets, tables and figures, and a page of them."""
    write_version(folder, trained.model, rows, trained.train, trained.test)
    evidence.table.to_csv(folder / "scores.csv", index=False)
    predictions = _predictions(rows, evidence)
    predictions.to_csv(folder / "predictions.csv", index=False)
    draw(folder / "figures", rows, trained, evidence)
    page = section(LatencyModelReport(name, None, False, predictions, evidence.table))
    (folder / "report.html").write_text(render(f"{name} on {len(rows)} rows", "", [page]), encoding="utf-8")


def _predictions(rows: Rows, evidence: Report) -> "pd.DataFrame":
    """Return each row with what was predicted of it, once for every way of leaving out."""
    table = collect.to_frame(rows)[["model", "part", "device", "load", "p50_ms"]].assign(model=rows.groups("model"))
    for by, found in evidence.evidence.items():
        table = table.assign(
            **{
                f"predicted_without_{by}_ms": found.p50_ms,
                f"error_without_{by}": found.p50_ms / rows.p50_ms - 1,
                f"inside_without_{by}": found.inside,
            }
        )
    return table
