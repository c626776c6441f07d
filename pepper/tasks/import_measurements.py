"""``task=import import.csv=FILE``: log measurements that were taken elsewhere."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pepper.config import PepperConfig
from pepper.console.progress import stepwise
from pepper.console.tables import show
from pepper.errors import LatencyError
from pepper.latency import description, elsewhere
from pepper.latency.elsewhere import Described, Line
from pepper.tasks.posting import flush
from pepper.tracking.history import history
from pepper.tracking.outbox import Outbox
from pepper.tracking.record import Record
from pepper.tracking.runs import CELL, LOGGED_METRIC
from pepper.tracking.store import Store

if TYPE_CHECKING:
    import pandas as pd

_MOST_SAID = 50


def import_measurements(config: PepperConfig, file: Path) -> int:
    """Log the measurements of a CSV file, each once, and return how many of its lines are bad.

    Raises:
        LatencyError: The file cannot be read, or a line is bad and `import.keep_good` does not say to go on.
        TrackingError: The store does not answer; what was read waits on disk then.
    """
    store = Store(config.tracking)
    logged = history(store)
    found, bad = read_measurements(config, file, logged)
    before = set(logged["cell"])
    outbox = Outbox(store.folder)
    fresh = 0
    for line, model in found:
        if (cell := elsewhere.identity(line, model)) not in before:
            before.add(cell)
            outbox.add(_record(line, model, cell, file), store.uri, store.config.experiment)
            fresh += 1
    posted = flush(store, store.uri, stepwise("log", config.is_quiet))
    if posted.failure is not None:
        raise posted.failure
    devices = len({line.device for line, _ in found})
    again = f"; {len(found) - fresh} were logged before" if fresh < len(found) else ""
    show(f"logged {fresh} measurements of {devices} devices from {file}{again}", measurements=fresh, bad=bad)
    return len(bad)


def read_measurements(
    config: PepperConfig, file: Path, logged: "pd.DataFrame"
) -> tuple[list[tuple[Line, Described]], list[str]]:
    """Read a file's measurements and find their models; say each bad line, and return these, too.

    Args:
        config: The configuration.
        file: The file.
        logged: All logged cells: what was measured here before need not be at hand.

    Raises:
        LatencyError: The file cannot be read, or a line is bad and `import.keep_good` does not say to go on.
    """
    lines, bad = elsewhere.read(file)
    found, unknown = elsewhere.describe(lines, _known(logged), stepwise("describe", config.is_quiet))
    bad = sorted([*bad, *unknown], key=lambda said: int(said.split()[1].rstrip(":")))
    for said in bad[:_MOST_SAID]:
        print(f"{file}: {said}", file=sys.stderr)
    if len(bad) > _MOST_SAID:
        print(f"{file}: {len(bad) - _MOST_SAID} more bad lines", file=sys.stderr)
    if bad and not config.imports.keep_good:
        raise LatencyError(
            f"{file}: {len(bad)} of {len(found) + len(bad)} lines are bad, nothing was taken;"
            " mend them, or take the others with import.keep_good=true"
        )
    return found, bad


def _known(logged: "pd.DataFrame") -> dict[str, dict[str, str]]:
    """What the runs of each model that is described say of it, by its SHA-256."""
    names = [name for name in elsewhere.OF_MODEL if f"params.{name}" in logged]
    known: dict[str, dict[str, str]] = {}
    for values in logged[[f"params.{name}" for name in names]].itertuples(index=False, name=None):
        facts = {name: value for name, value in zip(names, values, strict=True) if isinstance(value, str)}
        if description.PARAM in facts and "model_sha256" in facts:
            known[facts["model_sha256"]] = facts
    return known


def _record(line: Line, model: Described, cell: str, file: Path) -> Record:
    """Return what is logged of a measurement from elsewhere."""
    source = f", by {line.source}" if line.source else ""
    return Record(
        kind=CELL,
        name=f"{model.params['model']} / {line.device} / {line.load} / {line.threads}t",
        params=elsewhere.params_of(line, model, file),
        metrics={**line.metrics(), LOGGED_METRIC: time.time()},
        tags={"pepper.cell": cell, "pepper.verdict": "VALID", "pepper.trust": "stated, not verified"},
        note=f"**{line.latency_ms:.4g} ms**, as {file.name}, line {line.number}, says{source}",
    )
