"""``task=report``: one HTML file that shows what was measured, predicted and placed."""

import csv
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from pepper.config import PepperConfig
from pepper.config.composing import Composition
from pepper.console.progress import StepProgress, Told, untold
from pepper.console.tables import show
from pepper.errors import PlacementError
from pepper.execution.runner import Event
from pepper.measure.noise import NoiseFloor
from pepper.outputs import output_file, write_file
from pepper.placement.plan import Plan
from pepper.report import learning, measurements, plans
from pepper.report.cells import tidy
from pepper.report.execution_tables import MoveLine, RunLine, StepLine
from pepper.report.page import Section, render
from pepper.report.timelines import Busy
from pepper.tasks.result import Result
from pepper.tracking.history import history
from pepper.tracking.reading import artifact_names, newest_runs, read_artifact, sweep_cells
from pepper.tracking.registry import Registry
from pepper.tracking.store import Store

if TYPE_CHECKING:
    import pandas as pd

_MOST_PLACEMENTS = 5
_PLAN_TABLES = ("steps", "runs", "events", "moves", "timeline")
_PLAN_FILES = {"plan.json", *(f"{table}.csv" for table in _PLAN_TABLES)}


def report(composition: Composition) -> Result:
    """Write the report."""
    config = composition.config
    out = output_file("report.out", config.report.out)
    store = Store(config.tracking)
    with StepProgress(4, config.is_quiet, seldom=True) as progress:
        html = page(config, store, config.report.sweep, progress.advance)
    write_file("report.out", out, html)
    size = len(html.encode())
    show(f"{out}: {size / 1e6:.1f} MB; open it in any browser, offline too", file=out, bytes=size)
    return Result()


def page(config: PepperConfig, store: Store, sweep: str | None, told: Told = untold) -> str:
    """Return the report of a store, or of one sweep in it, as HTML.

    Raises:
        TrackingError: The store does not answer, or has no such sweep.
    """
    runs = history(store)
    noise = None
    if sweep is None:
        title, subtitle = "pepper report", f"every cell of {config.tracking.experiment} in {config.tracking.uri}"
    else:
        run, runs = sweep_cells(store, sweep, runs)
        title = f"Sweep {run.info.run_name}"
        noise = NoiseFloor.read(run.data.metrics)
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.info.start_time / 1000))
        subtitle = f"run {run.info.run_id}, {run.info.status}, started {started}"
    cells = tidy(runs)
    told("read", f"{len(cells)} profiles")
    sections = measurements.sections(cells, _machines(store, cells), noise)
    told("draw", "profiles")
    if sweep is None:
        sections[-1:-1] = [*_latency_model(config, store), *_placements(store)]
    told("draw", "the champion and plans")
    html = render(title, subtitle, sections)
    told("write", "the page")
    return html


def _machines(store: Store, cells: "pd.DataFrame") -> list[Mapping[str, Any]]:
    """Return what the newest worker of each device recorded of its machine."""
    newest = cells[cells["p50_ms"].notna()].sort_values("ended_ms").drop_duplicates("device", keep="last")
    machines: list[Mapping[str, Any]] = []
    for device, run_id in zip(newest["device"], newest["run_id"], strict=True):
        content = read_artifact(store, str(run_id), "environment.json")
        if content is None:
            continue
        facts = json.loads(content)
        host, worker, after = (facts.get(key, {}) for key in ("host", "worker", "after"))
        machines.append(
            {
                "device": device,
                "system": host.get("system"),
                "processor": host.get("cpu_model"),
                "cores": host.get("cores"),
                "memory, GiB": round(host["memory_bytes"] / 2**30, 1) if "memory_bytes" in host else None,
                "pinned to cores": ", ".join(map(str, worker.get("affinity", []))),
                "throttled by": facts.get("throttle_method"),
                "governor": ", ".join(sorted(set(after.get("governor", [])))),
                "onnxruntime": worker.get("onnxruntime"),
                "numpy": worker.get("numpy"),
            }
        )
    return machines


def _latency_model(config: PepperConfig, store: Store) -> list[Section]:
    """Return the section about the champion, or the newest version where there is none."""
    import pandas as pd

    registry = Registry(store, config.latency.registered_model)
    champion = registry.champion()
    versions = registry.versions()
    if champion is None and not versions:
        return []
    version = versions[-1] if champion is None else champion
    predictions, scores = (
        read_artifact(store, registry.run_id(version), f"{name}.csv") for name in ("predictions", "scores")
    )
    if predictions is None:
        return []
    model = learning.LatencyModelReport(
        name=registry.name,
        version=version,
        champion=version == champion,
        predictions=pd.read_csv(io.BytesIO(predictions)),
        scores=None if scores is None else pd.read_csv(io.BytesIO(scores)),
        promotions=[
            [time.strftime("%Y-%m-%d %H:%M", time.localtime(p.unix_s)), str(p.version), p.who, p.why]
            for p in registry.history()
        ],
    )
    return [learning.section(model)]


def _placements(store: Store) -> list[Section]:
    """Return a section for each of the newest placements and executions of plans."""
    sections = []
    for kind in ("placement", "execution"):
        found = newest_runs(store, kind, _MOST_PLACEMENTS)
        named = Counter(run.info.run_name for run in found)
        for run in found:
            name = str(run.info.run_name)
            if named[name] > 1:
                name += time.strftime(" (%Y-%m-%d %H:%M:%S)", time.localtime(run.info.start_time / 1000))
            sections.append(_plan(store, str(run.info.run_id), name))
    return [section for section in sections if section is not None]


def _plan(store: Store, run_id: str, name: str) -> Section | None:
    """Return the section about a placement or an execution; None if its plan is not there or is too old."""
    contents = {
        file: content
        for file in artifact_names(store, run_id)
        if file in _PLAN_FILES or (file.startswith("front_") and file.endswith(".json"))
        if (content := read_artifact(store, run_id, file))
    }
    if "plan.json" not in contents:
        return None
    try:
        found = {
            file: Plan.parse(text, f"{file} of run {run_id}")
            for file, text in contents.items()
            if file.endswith(".json")
        }
    except PlacementError as error:
        print(f"warning: left out of the report: {error}", file=sys.stderr)
        return None
    timelines: dict[str, list[Busy]] = {}
    for row in _rows(contents.get("timeline.csv")):
        timelines.setdefault(row["shown"], []).append(_line(Busy, row))
    return plans.section(
        plans.PlanReport(
            name,
            found.pop("plan.json"),
            run_id,
            front=list(found.values()),
            steps=[_line(StepLine, row) for row in _rows(contents.get("steps.csv"))],
            runs=[_line(RunLine, row) for row in _rows(contents.get("runs.csv"))],
            events=[_line(Event, row) for row in _rows(contents.get("events.csv"))],
            moves=[_line(MoveLine, row) for row in _rows(contents.get("moves.csv"))],
            timelines=timelines,
        )
    )


def _rows(content: bytes | None) -> list[dict[str, str]]:
    """Return the rows of a CSV file; none where there is none."""
    return list(csv.DictReader(io.StringIO((content or b"").decode(), newline="")))


_Line = TypeVar("_Line")


def _line(kind: type[_Line], row: Mapping[str, str]) -> _Line:
    """Return a row as the value that it was; what an earlier pepper wrote may lack columns."""
    types = get_type_hints(kind)
    read = {name: _value(types[name], row[name]) for name in types if row.get(name) is not None}
    return kind(**read)


def _value(kind: object, text: str) -> object:
    if kind is str:
        return text
    if kind is int:
        return int(text)
    return float(text) if text else None
