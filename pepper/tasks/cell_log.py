"""A sweep's cells as they come to an end: kept on disk at once, logged between blocks, shown in a table."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from omegaconf import OmegaConf

from pepper.console.progress import StepProgress
from pepper.console.tables import figure
from pepper.devices.calibration import Calibration
from pepper.latency import description
from pepper.measure.pace import pace_of
from pepper.measure.profile import Again, Profile
from pepper.planning.settings import run_params
from pepper.sweep.cells import Cell
from pepper.tasks.posting import flush
from pepper.tracking.outbox import Outbox
from pepper.tracking.posting import waiting
from pepper.tracking.profiles import record_profile, write_artifacts
from pepper.tracking.store import Store
from pepper.tracking.writer import run_of


class CellLog:
    """Takes finished cells: keeps them on disk at once, and logs them to MLflow between blocks."""

    def __init__(
        self,
        store: Store,
        parent: str | None,
        calibrations: dict[str, Calibration],
        described: dict[str, str],
        results: dict[str, dict[str, Any]],
        progress: StepProgress,
    ) -> None:
        self._store = store
        self._parent = parent
        self._calibrations = calibrations
        self._described = described
        self._results = results
        self._outbox = Outbox(store.folder)
        self._kept: dict[str, tuple[Cell, dict[str, Any]]] = {}  # cells and their rows by the keys of their records
        self.progress = progress
        self.failures: list[str] = []
        self.repeats: list[tuple[float, float]] = []
        """Medians of cells that were measured twice, ms."""
        self.unlogged: str | None = None

    def record(self, cell: Cell, profile: Profile, again: Again | None = None) -> None:
        """Keep a finished cell.

        Args:
            cell: The cell.
            profile: What was measured.
            again: Why it was measured again; then its first result counts as long as no other is finished.
        """
        calibration = self._calibrations.get(cell.device.identity)
        profile.metrics |= pace_of(profile.metrics, calibration.kernel_us if calibration else None)
        params = run_params(cell, calibration)
        if cell.identity in self._described:
            params[description.PARAM] = self._described[cell.identity]
        config = {key: asdict(getattr(cell, key)) for key in ("model_config", "device", "load", "measure")}
        record = record_profile(cell.name, cell.identity, params, profile, again, parent=self._parent)
        fill = partial(write_artifacts, profile, OmegaConf.to_yaml(config))
        self._outbox.add(record, self._store.uri, self._store.config.experiment, fill)
        reasons = "; ".join(profile.reasons)
        outcome = {"status": profile.status, "verdict": profile.verdict, "reasons": reasons, **profile.metrics}
        before, row = self._results[cell.identity], cell_row(cell, outcome)
        self._kept[record.key] = cell, row
        if again is Again.retest and profile.trusted:
            self.repeats.append((before["latency_p50_ms"], row["latency_p50_ms"]))
        elif again is None or (again is not Again.retest and profile.status == "FINISHED"):
            self._results[cell.identity] = row
        if profile.status != "FINISHED":
            if again is None:
                self.failures.append(f"{profile.status} {cell.name}: {reasons}")
            else:
                print(f"{profile.status} when measured again: {cell.name}: {reasons}; kept as it was", file=sys.stderr)
            said = f"{profile.status}: {reasons}"
        else:
            said = f"{figure(profile.metrics['latency_p50_ms'])} ms, {profile.verdict}"
            said += "".join(f": {why}" for why in filter(None, [reasons, "; ".join(profile.notes)]))
        self.progress.advance(cell.name, said, failed=profile.status != "FINISHED")

    def reuse(self, cell: Cell, result: dict[str, Any]) -> None:
        """Take over what another sweep has measured meanwhile."""
        self._results[cell.identity].update(result, reused=True)
        self.progress.advance(cell.name, "measured by another sweep")

    def extend(self, cells: int) -> None:
        """Expect more cells."""
        self.progress.extend(cells)

    def has(self, key: str) -> bool:
        """Whether a record is one of this log's."""
        return key in self._kept

    @property
    def waiting(self) -> bool:
        """Whether a result is not logged yet."""
        return bool(waiting(self._store.folder))

    def flush(self) -> None:
        """Log what waits; if the store fails, it goes on waiting."""
        posted = flush(self._store)
        for key, done in posted.written.items():
            if key in self._kept:
                self._kept[key][1]["run_id"] = done.run_id
        if posted.failure is None:
            self._look_up_runs()
        for each in posted.set_aside:
            if each.name in self._kept:
                self.failures.append(
                    f"NOT LOGGED {self._kept[each.name][0].name}: {each.reason}; it is in {each.folder}"
                )
        error = posted.failure
        if error is not None and self.unlogged is None:
            print(f"warning: {error}; results are kept in {self._outbox.folder}", file=sys.stderr)
        self.unlogged = None if error is None else str(error)

    def _look_up_runs(self) -> None:
        """Find the runs of results that another process has logged: all that waits in a folder is one post."""
        still = {entry.name for entry in self._outbox.entries()}
        for key, (_, row) in self._kept.items():
            if "run_id" not in row and key not in still and (run_id := run_of(self._store, key)):
                row["run_id"] = run_id


def cell_row(cell: Cell, outcome: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a line of the results table.

    Args:
        cell: The cell.
        outcome: Its status, verdict, reasons and figures, as `pepper.tracking.profiles.outcome` returns them; None for
            a cell that was not reached.
    """
    params = cell.params()
    facts = {key: params[key] for key in ("model", "device", "load", "load_percent", "threads", "share")}
    facts["model"] = cell.label or facts["model"]
    ended = {"status": "KILLED", "verdict": "", "reasons": "", "reused": False, **(outcome or {})}
    return {**facts, "cell": cell.identity, **ended}
