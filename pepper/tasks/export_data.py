"""``task=export_data``: write the VALID measurements of a store as the CSV file that ``task=import`` reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pepper.config.composing import Composition
from pepper.console.tables import show
from pepper.errors import LatencyError
from pepper.latency import collect, elsewhere
from pepper.tasks.result import Result
from pepper.tracking.history import history
from pepper.tracking.store import Store

if TYPE_CHECKING:
    import pandas as pd


def export_data(composition: Composition) -> Result:
    """Write the file.

    Raises:
        LatencyError: Nothing VALID was measured, or the file cannot be written.
        TrackingError: The store does not answer.
    """
    config = composition.config
    trusted = collect.trusted(history(Store(config.tracking)))
    if trusted.empty:
        raise LatencyError("no VALID measurement to export; measure first, such as task=profile +sweep=loads")
    file = Path(config.export_data.csv)
    count = elsewhere.write(_rows(trusted), file)
    show(f"wrote {count} measurements to {file}", file=str(file), measurements=count)
    return Result()


def _rows(cells: "pd.DataFrame") -> Iterator[dict[str, object]]:
    for row in cells.sort_values("ended_ms", kind="stable").to_dict("records"):
        facts = {str(name): value for name, value in row.items() if value == value and value is not None}
        yield elsewhere.row_of(
            {name.removeprefix("params."): str(value) for name, value in facts.items() if name.startswith("params.")},
            float(facts["metrics.latency_p50_ms"]),
            facts.get("metrics.samples"),
        )
