"""Measured cells as one tidy table, from what a tracking store holds."""

from typing import TYPE_CHECKING

from pepper.measure.profile import Again
from pepper.names import PARAMS, Measured, display_names

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = ("VALID", "INVALID", "FAILED", "KILLED")

_TEXTS = {
    "params.model": "model",
    "params.device": "device",
    "params.load": "load",
    "params.provider": "provider",
    "params.device_cpu_model": "processor",
    "reasons": "reasons",
    "onnxruntime": "onnxruntime",
    "version": "version",
    "cell": "cell",
    "run_id": "run_id",
    "parent": "parent",
}
_NUMBERS = {
    "params.load_percent": "load_percent",
    "params.threads": "threads",
    "params.share": "share",
    "params.device_frequency_mhz": "frequency_mhz",
    "params.device_gflops": "gflops",
    "params.device_memory_gbps": "memory_gbps",
    "metrics.latency_p50_ms": "p50_ms",
    "metrics.latency_p50_low_ms": "low_ms",
    "metrics.latency_p50_high_ms": "high_ms",
    "metrics.latency_p95_ms": "p95_ms",
    "metrics.throughput_per_s": "throughput_per_s",
    "metrics.samples": "samples",
    "metrics.load_alone_percent": "load_achieved_percent",
    "metrics.share_achieved": "share_achieved",
    "ended_ms": "ended_ms",
}
# Settings beside the threads that tell two cells of a model, device and load apart, where a sweep varies them.
_VARIED = (
    "optimization",
    "spinning",
    "parallel",
    "batch",
    "input_shapes",
    "provider",
    "provider_options",
    "binding",
    "load_cores",
    "load_accelerator_percent",
)


def tidy(runs: "pd.DataFrame") -> "pd.DataFrame":
    """Return the newest measurement of each cell that counts, one row a cell, in the store's terms, prefixes left out.

    Args:
        runs: One row a run: ``params.*`` (text), ``metrics.*``, ``status``, ``verdict`` and ``cell``. Columns
            may be missing; rows without a model or a device (of other tools) are left out.

    Returns:
        Texts ``model``, ``device``, ``load``, ``series`` (device and whatever else varies), ``verdict``
        (``VALID``, ``INVALID``, ``FAILED`` or ``KILLED``) and ``reasons``; numbers with their units in their
        names, NaN where there is none. Sorted by model, share (largest first), series and load.
    """
    import pandas as pd

    table = pd.DataFrame(index=runs.index)
    for source, name in _TEXTS.items():
        table[name] = runs[source].astype(object) if source in runs else None
    for source, name in _NUMBERS.items():
        table[name] = pd.to_numeric(runs[source], errors="coerce") if source in runs else float("nan")
    status = runs["status"] if "status" in runs else pd.Series("FAILED", index=runs.index)
    verdict = runs["verdict"] if "verdict" in runs else pd.Series(None, index=runs.index, dtype=object)
    table["verdict"] = verdict.where(verdict.isin(VERDICTS) & (status == "FINISHED"), status)
    again = runs["again"] if "again" in runs else pd.Series(None, index=runs.index, dtype=object)
    ours = (again != Again.retest) & table["model"].notna() & table["device"].notna() & table["verdict"].isin(VERDICTS)
    table, runs = table[ours].reset_index(drop=True), runs[ours].reset_index(drop=True)
    for name in ("reasons", "load"):
        table[name] = table[name].fillna("")
    table["model"] = pd.Series(_models(runs), table.index, dtype=object)
    table["series"] = _series(runs, table)
    table = table.sort_values("ended_ms", kind="stable").drop_duplicates("cell", keep="last")
    order = table.assign(small=-table["share"])
    return table.loc[order.sort_values(["model", "small", "series", "load_percent"]).index].reset_index(drop=True)


def _models(runs: "pd.DataFrame") -> list[str]:
    """Return what each row's model is called beside the others."""
    known = [name for name in PARAMS if f"params.{name}" in runs]
    rows = runs[[f"params.{name}" for name in known]].astype(object).itertuples(index=False, name=None)
    return display_names([Measured.of(dict(zip(known, row, strict=True))) for row in rows])


def measured(cells: "pd.DataFrame") -> "pd.DataFrame":
    """Return the cells that have a median."""
    return cells[cells["p50_ms"].notna()]


def _series(runs: "pd.DataFrame", table: "pd.DataFrame") -> "pd.Series":
    """Name each row's device, its threads where they vary, and the other settings that vary within it."""
    series = table["device"].astype(str)
    if len(table["threads"].dropna().unique()) > 1:
        series += table["threads"].map(lambda n: "" if n != n else f" ({n:.0f} thread{'' if n == 1 else 's'})")
    for key in _VARIED:
        column = f"params.{key}"
        if column not in runs:
            continue
        values = runs[column].fillna("0" if key == "load_accelerator_percent" else "default")
        # Idle cells load no core, whatever a sweep asks for; a part's shapes are its model's own.
        loaded = table["load_percent"] > 0 if key == "load_cores" else table["load_percent"].notna()
        groups = values.where(loaded).groupby([table["model"], table["device"], table["threads"]])
        varied = (groups.transform("nunique") > 1) & loaded
        series = series.where(~varied, series + f", {key}=" + values.astype(str))
    return series
