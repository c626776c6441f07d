"""Sections of the report about what was measured: latencies, devices, verdicts, and how it was done."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pepper.measure.noise import NoiseFloor
from pepper.report import charts
from pepper.report.cells import VERDICTS, measured
from pepper.report.page import Block, Chart, Facts, Section, Table

if TYPE_CHECKING:
    import pandas as pd

MOST_FAILURES = 200

_HOW = (
    "A cell is one model on one device under one load, timed in a fresh worker process. After warm-up to a steady"
    " state, single inferences are timed until the median is known well enough. The interval is the 95 % confidence"
    " interval of the median, from order statistics; the 95th percentile is given only where there are enough samples."
)
_VERDICT = (
    "INVALID means: do not trust these figures. The reason is given with each; the load and the share of the core are"
    " verified, not believed."
)


def sections(
    cells: "pd.DataFrame", machines: Sequence[Mapping[str, Any]], noise: NoiseFloor | None = None
) -> list[Section]:
    """Return the sections about measured cells, in order; those with nothing to show are empty.

    Args:
        cells: As :func:`pepper.report.cells.tidy` returns them.
        machines: What the workers recorded, one mapping a device: ``device`` and whatever else is known.
        noise: How far two measurements of a cell differed, where cells were measured twice.
    """
    done = measured(cells)
    looks = charts.styles(_by_speed(done))
    return [
        Section("What was measured", _overview(cells, done, noise)),
        Section("Devices compared", _devices(done, looks)),
        Section("Latency against load", _loads(done, looks)),
        Section("Every cell", _every_cell(cells)),
        Section("Verdicts", _verdicts(cells)),
        Section("How was this measured?", _how(cells, done, machines)),
    ]


def _by_speed(done: "pd.DataFrame") -> list[str]:
    """Return the series, the fastest first: by the median over models of their time over the fastest's."""
    least = done.groupby("model")["p50_ms"].transform("min")
    return [str(name) for name in (done["p50_ms"] / least).groupby(done["series"]).median().sort_values().index]


def _overview(cells: "pd.DataFrame", done: "pd.DataFrame", noise: NoiseFloor | None) -> list[Block]:
    if cells.empty:
        return ["Nothing was measured yet: python -m pepper.run +sweep=loads measures three models."]
    counts = cells["verdict"].value_counts()
    facts = {
        "cells": f"{len(cells):,}",
        "verdicts": ", ".join(f"{counts[verdict]:,} {verdict}" for verdict in VERDICTS if verdict in counts),
        "models and parts": f"{cells['model'].nunique():,}",
        "devices": f"{cells['device'].nunique():,}",
        "loads": f"{cells['load'].nunique():,}",
        "timed inferences": f"{done['samples'].sum():,.0f}",
    }
    if noise:
        facts["noise floor"] = str(noise)
    blocks: list[Block] = [Facts(facts)]
    if done.empty:
        blocks.append("No cell has a figure: each one failed. The reasons are below.")
    return blocks


def _loads(done: "pd.DataFrame", looks: Mapping[str, charts.Style]) -> list[Block]:
    drawn = [
        (str(model), rows)
        for model, rows in done.groupby("model")
        if (rows["load_percent"] != rows["load_percent"].iloc[0]).any()  # else there is no course to see
    ]
    if not drawn:
        return []
    return [
        "Each point is the median of a cell with its 95 % interval; a dash is the 95th percentile. Cells that are not"
        " VALID are hollow and off the line. Point at a mark for its figures; a click on a device hides it.",
        [Chart(charts.latency_by_load(rows, looks), _count(rows), model) for model, rows in drawn],
    ]


def _devices(done: "pd.DataFrame", looks: Mapping[str, charts.Style]) -> list[Block]:
    if max(done["series"].nunique(), done["model"].nunique()) < 2:
        return []
    lowest = done["load_percent"].min()
    rows = done[done["load_percent"] == lowest]
    load = rows["load"].iloc[0]
    blocks: list[Block] = [
        Chart(charts.devices_compared(rows, looks), f"Load {load} ({lowest:g} % requested). {_count(rows)}")
    ]
    trusted = done[done["verdict"] == "VALID"]
    table = _slowdowns(trusted, list(looks), lowest)
    if table.rows:
        blocks.append(table)
    return blocks


def _slowdowns(trusted: "pd.DataFrame", series: Sequence[str], lowest: float) -> Table:
    """How many times as long as on the fastest device at the lowest load: the median over models."""
    base = trusted[trusted["load_percent"] == lowest].groupby("model")["p50_ms"].min()
    ratio = trusted.assign(ratio=trusted["p50_ms"] / trusted["model"].map(base)).dropna(subset=["ratio"])
    middle = ratio.groupby(["series", "load_percent"])["ratio"].median()
    counts = ratio.groupby("series")["model"].nunique()
    loads = sorted(ratio["load_percent"].unique())
    rows = [
        [name, *(_at(middle, (name, load)) for load in loads), int(counts[name])] for name in series if name in counts
    ]
    return Table(
        "Times as long as the same model takes on its fastest device at the lowest load: median over the models"
        " with VALID cells",
        ["device", *(f"load {load:g} %" for load in loads), "models"],
        rows,
    )


def _at(values: "pd.Series", key: Any) -> float | None:
    return float(values[key]) if key in values.index else None


def _every_cell(cells: "pd.DataFrame") -> list[Block]:
    if cells.empty:
        return []
    columns = {
        "model": "model",
        "series": "device",
        "load": "load",
        "p50_ms": "median ms",
        "low_ms": "from",
        "high_ms": "to",
        "p95_ms": "95th percentile ms",
        "throughput_per_s": "inferences/s",
        "samples": "samples",
        "load_achieved_percent": "load achieved %",
        "share_achieved": "share achieved",
        "verdict": "verdict",
    }
    chosen = cells[list(columns)].astype(object)
    chosen = chosen.where(chosen.notna(), None)
    rows = chosen.to_numpy().tolist()
    return [Table(f"All {len(rows):,} cells: medians with 95 % intervals", list(columns.values()), rows, long=True)]


def _verdicts(cells: "pd.DataFrame") -> list[Block]:
    if cells.empty:
        return []
    counts = cells.pivot_table(index="series", columns="verdict", values="cell", aggfunc="count", fill_value=0)
    names = [verdict for verdict in VERDICTS if verdict in counts]
    blocks: list[Block] = [
        _VERDICT,
        Table(
            "Cells by device and verdict",
            ["device", *names],
            [[str(series), *(int(row[name]) for name in names)] for series, row in counts.iterrows()],
        ),
    ]
    reasons = cells["reasons"].str.split("; ").explode()
    kinds = reasons[reasons != ""].str.replace(":.*", "", regex=True).value_counts()
    if len(kinds):
        listed = kinds.head(20)
        blocks.append(
            Table(
                f"Why: the kinds of reasons ({len(listed)} of {len(kinds)}; a cell may have several)",
                ["reason", "cells"],
                [[str(kind), int(count)] for kind, count in listed.items()],
            )
        )
    failed = cells[cells["verdict"].isin(("FAILED", "KILLED"))]
    if len(failed):
        shown = failed.head(MOST_FAILURES)
        blocks.append(
            Table(
                f"Cells without a figure: {len(shown)} of {len(failed)}",
                ["model", "device", "load", "verdict", "why"],
                shown[["model", "series", "load", "verdict", "reasons"]].to_numpy().tolist(),
            )
        )
    return blocks


def _how(cells: "pd.DataFrame", done: "pd.DataFrame", machines: Sequence[Mapping[str, Any]]) -> list[Block]:
    if cells.empty:
        return []
    blocks: list[Block] = [_HOW]
    if len(done):
        count = done["samples"]
        begin, end = (_day(cells["ended_ms"].min()), _day(cells["ended_ms"].max()))
        blocks.append(
            Facts(
                {
                    "samples a cell": _range(count),
                    "median samples a cell": f"{count.median():,.0f}",
                    "measured": begin if begin == end else f"{begin} to {end}",
                    "onnxruntime": _listed(cells["onnxruntime"]),
                    "pepper": _listed(cells["version"]),
                    "processor": _listed(cells["processor"]),
                }
            )
        )
    columns = {
        "frequency_mhz": "MHz",
        "share": "share requested",
        "share_achieved": "share achieved (median)",
        "gflops": "GFLOP/s measured",
        "memory_gbps": "GB/s measured",
    }
    by_device = done.groupby("series")[list(columns)].median()
    if len(by_device):
        blocks.append(
            Table(
                "Devices, as they were calibrated (medians over their cells)",
                ["device", *columns.values(), "cells"],
                [
                    [str(name), *charts.plain(row), int((done["series"] == name).sum())]
                    for name, row in by_device.iterrows()
                ],
            )
        )
    if machines:
        keys = list(dict.fromkeys(key for machine in machines for key in machine))
        blocks.append(
            Table(
                "The machine, as the newest worker of each device recorded it",
                keys,
                [[machine.get(key) for key in keys] for machine in machines],
            )
        )
    return blocks


def _count(rows: "pd.DataFrame") -> str:
    samples = rows["samples"]
    return f"{len(rows):,} cells of {_range(samples)} samples, {samples.sum():,.0f} in all"


def _range(values: "pd.Series") -> str:
    low, high = values.min(), values.max()
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def _listed(values: "pd.Series") -> str:
    return ", ".join(sorted({str(value) for value in values.dropna()})) or "not recorded"


def _day(unix_ms: float) -> str:
    import pandas as pd

    return str(pd.Timestamp(unix_ms, unit="ms").date())
