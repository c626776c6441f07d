"""``task=import``: log the results that were kept on disk while the store could not be reached."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from pepper.config import PepperConfig, TrackingConfig
from pepper.errors import TrackingError
from pepper.report.progress import stepwise
from pepper.report.tables import show
from pepper.tasks.report import attach_plan_page
from pepper.tracking.executions import log_unlogged, unlogged
from pepper.tracking.records import Pending
from pepper.tracking.runs import flush
from pepper.tracking.store import Store


def import_results(config: PepperConfig) -> int:
    """Log every waiting record once, each to the store that it was kept for; returns the exit status.

    Raises:
        TrackingError: A store does not answer; what waits for the others was logged.
    """
    folder = Path(config.tracking.folder)
    executions = unlogged(folder)
    waiting = dict.fromkeys(
        [(record.uri, record.experiment) for record in Pending(folder).all()]
        + [(kept.uri, kept.experiment) for kept in executions]
    )
    counts: dict[str, int] = {}
    failed: TrackingError | None = None
    for uri, experiment in waiting or {(None, None): None}:
        tracking = _at(config.tracking, uri, experiment)
        try:
            store = Store(tracking)
            logged = len(flush(store, uri, stepwise("log", config.output == "quiet")))
        except TrackingError as error:
            failed = failed or error
            continue
        for kept in executions:
            if (kept.uri, kept.experiment) == (uri, experiment):
                page = partial(attach_plan_page, store, name=kept.execution.name)
                try:
                    logged += log_unlogged(store, kept, page)
                except TrackingError as error:
                    failed = failed or error
        counts[tracking.uri] = counts.get(tracking.uri, 0) + logged
    for where, count in counts.items():
        show(f"logged {count} waiting results to {where}", logged=counts)
    if failed is not None:
        raise failed
    return 0


def _at(tracking: TrackingConfig, uri: str | None, experiment: str | None) -> TrackingConfig:
    """Return where records belong: an SQLite file that was moved since is taken to be the configured one."""
    moved = uri is not None and uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file()
    return replace(
        tracking,
        uri=tracking.uri if uri is None or moved else uri,
        experiment=experiment or tracking.experiment,
    )
