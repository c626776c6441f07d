"""``task=adapt``: measure a new device a little and teach the champion what that says about it."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from rich.table import Table

from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.console.progress import stepwise
from pepper.console.tables import show
from pepper.errors import ConfigError, LatencyError
from pepper.hosts.reach import host_at
from pepper.latency import collect, features
from pepper.latency.adaptation import Adaptation, choose, left_out
from pepper.latency.dataset import Rows
from pepper.latency.evaluation import scores
from pepper.latency.features import FEATURES, Values
from pepper.latency.model import LatencyModel
from pepper.names import Measured
from pepper.planning.latency_models import chosen_version, load_version, write_version
from pepper.planning.settings import run_params
from pepper.planning.shipped import LatencyModels, caution
from pepper.sweep.axes import plan
from pepper.sweep.cells import Cell
from pepper.tasks.absent import adapt_to_absent, propose
from pepper.tasks.posting import flush_before
from pepper.tasks.profile import measure
from pepper.tasks.result import TRAINING, Registered, Result
from pepper.tracking.abandoned import close_abandoned
from pepper.tracking.history import history
from pepper.tracking.posting import log
from pepper.tracking.record import Dataset, NewVersion, Record
from pepper.tracking.store import Store

CANDIDATES = "parts"
"""The sweep that cells are chosen from if none is given."""


@dataclass(frozen=True)
class _Score:
    """Errors on some rows before and after the adaptation."""

    title: str
    before: dict[str, float]
    after: dict[str, float]


def adapt(composition: Composition) -> Result:
    """Learn a device: one that is here by measuring it, another by the latencies that a file has.

    Raises:
        LatencyError: There is nothing to measure, or too little is VALID.
    """
    wanted = composition.config.adapt
    if wanted.csv is not None:
        return adapt_to_absent(composition.config, Path(wanted.csv).expanduser())
    if wanted.propose is not None:
        return propose(composition.config, Path(wanted.propose).expanduser())
    return adapt_here(composition)


def adapt_here(composition: Composition) -> Registered:
    """Choose cells, measure them on the device, adapt the champion, log and register it.

    Raises:
        LatencyError: There is nothing to measure, or too few measurements are VALID.
    """
    config = composition.config
    profiles = Store(config.tracking)
    store = Store(replace(config.tracking, experiment=config.latency.experiment))
    flush_before(store)
    close_abandoned(store)
    registry = LatencyModels(profiles, config.latency.registered_model)
    version = chosen_version(registry, config.latency.version)
    for line in caution(registry, version):
        show(f"warning: {line}")
    champion = load_version(registry, version)
    with registry.artifacts(version, "dataset") as folder:
        train, test = (collect.read(folder / f"{name}.parquet") for name in ("train", "test"))
    if config.sweep is None:
        composition = composition.anew([*composition.overrides, f"+sweep={CANDIDATES}"])
        config = composition.config
    cells = plan(composition, stepwise("find the models", config.is_quiet))
    cells = _chosen(config, cells, champion, test, profiles.folder / "cache")
    measure(config, cells)
    rows, others = _measured(profiles, cells)
    if rows is None:
        raise LatencyError(f"none of the {len(cells)} measurements on {config.device.name} is VALID; run it again")
    trained = replace(champion, adaptations=())
    ratios = rows.p50_ms / trained.p50_ms(rows.features)
    adaptation = Adaptation.fit(rows.features, ratios, trained.roofline)
    adapted = champion.adapted(adaptation)
    unseen_ms = trained.p50_ms(rows.features) * np.exp(left_out(rows.features, ratios, trained.roofline))
    title = f"{len(rows)} measurements, each left out"
    results = [_score(title, rows, champion.p50_ms(rows.features), unseen_ms)]
    rest = others.take(adaptation.of_device(others.features)) if others else None
    if rest:
        title = f"{len(rest)} other measurements there"
        results.append(_score(title, rest, champion.p50_ms(rest.features), adapted.p50_ms(rest.features)))
    show(_table(results), errors=[asdict(result) for result in results])
    if adaptation.of_device(train.features).any():
        show(f"note: version {version} was trained on measurements of this device")
    train, test = joined(train, test, rows, rest)
    everything = Rows.join(train, test)
    tags = {
        "features_digest": features.digest(),
        "dataset_digest": everything.digest,
        "adapted_from": str(version),
        "device": config.device.name,
        "measurements": str(len(rows)),
        "mape_before": f"{results[-1].before['mape']:.4g}",
        "mape_after": f"{results[-1].after['mape']:.4g}",
    }
    with tempfile.TemporaryDirectory() as scratch:
        write_version(Path(scratch), adapted, everything, train, test)
        record = _record(Path(scratch), config, version, adaptation, everything, results)
        done = log(store, replace(record, version=NewVersion(registry.name, tags)), "what was learned")
    show(
        f"version {done.version} of {registry.name} is version {version} adapted to {config.device.name};"
        f" task=promote promote.version={done.version} compares it with the champion",
        version=done.version,
        registered_model=registry.name,
        adapted_from=version,
        run_id=done.run_id,
    )
    return Registered.of(done)


def _chosen(config: PepperConfig, cells: Sequence[Cell], champion: LatencyModel, kept: Rows, cache: Path) -> list[Cell]:
    """The cells that stand best for all, without the models that are kept for tests."""
    devices = sorted({cell.device.name for cell in cells})
    if len(devices) > 1:
        raise ConfigError(f"task=adapt: one device at a time; give device=... ({', '.join(devices)})")
    readable = [cell for cell in cells if cell.model is not None]
    models = [Measured.of(cell.params()).whole for cell in readable]
    held_out = kept.holds(np.array([model.name for model in models]), np.array([model.sha256 for model in models]))
    free = [cell for cell, held in zip(readable, held_out, strict=True) if not held]
    if not free:
        names = ", ".join(np.unique(kept.groups("model")))
        raise LatencyError(
            f"nothing to measure: the sweep's models cannot be read, or are held out ({names});"
            " give another with +sweep=..."
        )
    calibration = host_at(free[0].device.host).calibrate(free[0].device)
    candidates = collect.describe(
        [run_params(cell, calibration) for cell in free], cache, stepwise("describe", config.is_quiet)
    )
    parts = np.array([cell.model.content_hash for cell in free if cell.model])
    return [free[index] for index in choose(candidates, parts, champion.roofline, config.adapt.measurements)]


def _measured(store: Store, cells: Sequence[Cell]) -> tuple[Rows | None, Rows | None]:
    """The newest VALID measurement of each of the cells, and all measurements of other cells."""
    trusted = collect.trusted(history(store))
    ours = trusted["cell"].isin([cell.identity for cell in cells])
    newest = trusted[ours].sort_values("ended_ms").drop_duplicates("cell", keep="last")
    ours_rows, others = (
        collect.collect(chosen, store.folder / "cache").rows if len(chosen) else None
        for chosen in (newest, trusted[~ours])
    )
    return ours_rows, others


def joined(train: Rows, test: Rows, rows: Rows, rest: Rows | None) -> tuple[Rows, Rows]:
    """Add what was measured to the rows trained on, and the rest of the models held out to those; no row twice."""
    known = Rows.join(train, test)
    if rest is not None:
        test = Rows.join(test, rest.take(test.holds(rest.model, rest.group)).without(known))
    return Rows.join(train, rows.without(known)), test


def _score(title: str, rows: Rows, before_ms: Values, after_ms: Values) -> _Score:
    return _Score(title, scores(rows.p50_ms, before_ms), scores(rows.p50_ms, after_ms))


def _record(
    folder: Path, config: PepperConfig, version: int, adaptation: Adaptation, rows: Rows, results: Sequence[_Score]
) -> Record:
    """Return what is logged of an adaptation."""
    metrics: dict[str, float] = {}
    for name, result in zip(("left_out", "others"), results, strict=False):
        for key in ("mape", "median_error", "within_10", "rows"):
            metrics |= {f"{name}_{key}_before": result.before[key], f"{name}_{key}_after": result.after[key]}
    last = results[-1]
    return Record(
        kind=TRAINING,
        name=f"{config.latency.registered_model} version {version} adapted to {config.device.name}",
        params={
            "adapted_from": version,
            "device": config.device.name,
            "measurements": adaptation.measurements,
            **{f"factor_{name}": np.exp(value) for name, value in adaptation.to_json()["factors"].items()},
        },
        metrics=metrics,
        dataset=Dataset("profiles", rows.digest, "dataset/rows.parquet", FEATURES, len(rows)),
        note=f"mean error **{last.before['mape']:.1%}** before, **{last.after['mape']:.1%}** after ({last.title})",
        artifacts=folder,
    )


def _table(results: Sequence[_Score]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("error on")
    for name in ("mean before", "mean after", "median before", "median after", "in 10 % before", "in 10 % after"):
        table.add_column(name, justify="right")
    for result in results:
        pairs = [(result.before[key], result.after[key]) for key in ("mape", "median_error", "within_10")]
        table.add_row(result.title, *(f"{value:.1%}" for pair in pairs for value in pair))
    return table
