"""Saved views: which columns and charts MLflow's UI shows of pepper's runs.

MLflow's own default shows neither parameters nor metrics. A saved view is a tag of the experiment; the UI lists it
under *Views*, and opens it by ``viewStateShareKey`` in the address. Servers that know no saved views ignore the tag.
"""

import json
import time
from collections.abc import Sequence
from typing import Any

from pepper.tracking.store import Store, reaching

CELLS, TRAININGS = "pepper-cells", "pepper-trainings"
_TAG = "mlflow.sharedViewState."
_BY_NAME = "tags.`mlflow.runName`"  # in any order but that of their start, MLflow lists a sweep's cells flat

_VIEWS: dict[str, dict[str, Any]] = {
    CELLS: {
        "name": "pepper: cells",
        "searchFilter": "tags.`pepper.kind` = 'cell'",
        "params": ("model", "device", "threads", "load"),
        "metrics": ("latency_p50_ms", "latency_p50_low_ms", "latency_p50_high_ms", "latency_p95_ms", "samples"),
        "tags": ("pepper.verdict", "pepper.reasons"),
        "order": _BY_NAME,
        "x": "load_percent",
        "y": "latency_p50_ms",
        "axes": ("model", "device", "load_percent"),
    },
    TRAININGS: {
        "name": "pepper: trainings",
        "searchFilter": "tags.`pepper.kind` = 'training'",
        "params": ("train_rows", "test_rows", "trials"),
        "metrics": ("test_mape", "test_median_error", "test_within_10", "cv_mape", "noise_floor"),
        "tags": (),
        "order": "attributes.start_time",
        "x": "train_rows",
        "y": "test_mape",
        "axes": ("train_rows", "trials"),
    },
}


def offer(store: Store, view: str) -> None:
    """Save a view with the store's experiment, unless it has it already.

    Raises:
        TrackingError: The store does not answer.
    """
    with reaching(store.config):
        experiment = store.client.get_experiment(store.experiment_id)
        if _TAG + view not in experiment.tags:
            now_ms = round(time.time() * 1000)
            described = _VIEWS[view]
            content = {"name": described["name"], "createdAt": now_ms, "state": json.dumps(_state(described))}
            store.client.set_experiment_tag(store.experiment_id, _TAG + view, json.dumps(content))


def address(store: Store, view: str) -> str:
    """Return where a view opens, below the UI's own address."""
    return f"#/experiments/{store.experiment_id}/runs?viewStateShareKey={view}"


def _state(view: dict[str, Any]) -> dict[str, Any]:
    """Return a view as MLflow's UI writes it down."""
    columns = [*_columns("params", view["params"]), *_columns("metrics", view["metrics"])]
    columns += _columns("tags", view["tags"])
    chart = {"metricSectionId": "pepper", "deleted": False, "isGenerated": False, "runsCountToCompare": 1000}
    return {
        "searchFilter": view["searchFilter"],
        "orderByKey": view["order"],
        "orderByAsc": view["order"] == _BY_NAME,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": columns,
        "columnOrder": columns,
        "compareRunSections": [{"uuid": "pepper", "name": "pepper", "display": True, "isReordered": False}],
        "compareRunCharts": [
            {
                **chart,
                "type": "PARALLEL",
                "uuid": "pepper-parallel",
                "selectedParams": list(view["axes"]),
                "selectedMetrics": [view["y"]],
                "showAllRuns": True,
            },
            {
                **chart,
                "type": "SCATTER",
                "uuid": "pepper-scatter",
                "xaxis": {"type": "PARAM", "key": view["x"]},
                "yaxis": {"type": "METRIC", "key": view["y"]},
            },
        ],
    }


def _columns(kind: str, names: Sequence[str]) -> list[str]:
    return [f"{kind}.`{name}`" for name in names]
