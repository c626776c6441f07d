"""``task=import``: log the results that were kept on disk while the store could not be reached."""

from pepper.config import PepperConfig
from pepper.report.tables import show
from pepper.tracking.runs import flush
from pepper.tracking.store import Store


def import_results(config: PepperConfig) -> int:
    """Log every waiting record once; returns the exit status."""
    count = flush(Store(config.tracking))
    show(f"logged {count} waiting results to {config.tracking.uri}", logged=count, uri=config.tracking.uri)
    return 0
