"""``task=import``: log the results that were kept on disk while the store was away, or what a CSV file holds."""

from dataclasses import replace
from pathlib import Path

from pepper.config import TrackingConfig
from pepper.config.composing import Composition
from pepper.console.output import add_results
from pepper.console.progress import stepwise
from pepper.console.tables import show
from pepper.errors import TrackingError
from pepper.tasks.import_measurements import import_measurements
from pepper.tasks.posting import flush, warn
from pepper.tasks.result import Result
from pepper.tracking.abandoned import close_abandoned
from pepper.tracking.posting import addresses, adopt
from pepper.tracking.store import Store


def import_results(composition: Composition) -> Result:
    """Log all that waits once, each to the store that it was kept for, and end the runs whose process is gone.

    Returns:
        Its status is 0, or 1 if something cannot be logged and was set aside, or a line of a file is bad.

    Raises:
        TrackingError: A store does not answer; what waits for the others was logged.
    """
    config = composition.config
    if config.imports.csv is not None:
        return Result(1 if import_measurements(config, Path(config.imports.csv).expanduser()) else 0)
    counts: dict[str, int] = {}
    versions: list[tuple[str, int]] = []
    failed: TrackingError | None = None
    folder = Path(config.tracking.folder)
    unusable = adopt(folder)
    warn(unusable)
    set_aside = len(unusable)
    for uri, experiment in addresses(folder) or [(None, None)]:
        tracking = _at(config.tracking, uri, experiment)
        try:
            store = Store(tracking)
            posted = flush(store, uri, stepwise("log", config.is_quiet))
            close_abandoned(store)
        except TrackingError as error:
            failed = failed or error
            continue
        failed = failed or posted.failure
        set_aside += len(posted.set_aside)
        counts[tracking.uri] = counts.get(tracking.uri, 0) + len(posted.written)
        versions += [(done.model, done.version) for done in posted.written.values() if done.model and done.version]
    for where, count in counts.items():
        show(f"logged {count} waiting results to {where}", logged=counts)
    for model, version in versions:
        show(f"version {version} of {model} is registered; task=promote compares it with the champion")
    if versions:
        add_results(registered=[{"registered_model": model, "version": version} for model, version in versions])
    if set_aside:
        show(f"{set_aside} cannot be logged", set_aside=set_aside)
    if failed is not None:
        raise failed
    return Result(1 if set_aside else 0)


def _at(tracking: TrackingConfig, uri: str | None, experiment: str | None) -> TrackingConfig:
    """Return where records belong: an SQLite file that was moved since is taken to be the configured one."""
    moved = uri is not None and uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file()
    return replace(
        tracking,
        uri=tracking.uri if uri is None or moved else uri,
        experiment=experiment or tracking.experiment,
    )
