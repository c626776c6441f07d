"""``task=import``: log the results that were kept on disk while the store could not be reached."""

from dataclasses import replace
from pathlib import Path

from pepper.config import TrackingConfig
from pepper.config.composing import Composition
from pepper.console.progress import stepwise
from pepper.console.tables import show
from pepper.errors import TrackingError
from pepper.tasks.posting import flush
from pepper.tasks.result import Result
from pepper.tracking.abandoned import close_abandoned
from pepper.tracking.posting import addresses
from pepper.tracking.store import Store


def import_results(composition: Composition) -> Result:
    """Log all that waits once, each to the store that it was kept for, and end the runs whose process is gone.

    Returns:
        Its status is 0, or 1 if something cannot be logged and was set aside.

    Raises:
        TrackingError: A store does not answer; what waits for the others was logged.
    """
    config = composition.config
    counts: dict[str, int] = {}
    set_aside = 0
    failed: TrackingError | None = None
    for uri, experiment in addresses(Path(config.tracking.folder)) or [(None, None)]:
        tracking = _at(config.tracking, uri, experiment)
        try:
            store = Store(tracking)
            posted = flush(store, uri, stepwise("log", config.output == "quiet"))
            close_abandoned(store)
        except TrackingError as error:
            failed = failed or error
            continue
        failed = failed or posted.failure
        set_aside += len(posted.set_aside)
        counts[tracking.uri] = counts.get(tracking.uri, 0) + posted.count
    for where, count in counts.items():
        show(f"logged {count} waiting results to {where}", logged=counts)
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
