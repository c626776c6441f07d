"""Cells as a sweep would have logged them, without measuring anything."""

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from harness import Desk

from pepper.measure.profile import Profile
from pepper.tracking.outbox import Outbox
from pepper.tracking.profiles import record_profile, write_artifacts

DEVICES = {"share100": 1.0, "share50": 0.5, "share25": 0.25}
LOADS = {"idle": 0.0, "cpu50": 50.0, "cpu90": 90.0}


def log_cells(desk: Desk, models: Iterable[str], *, failed: bool = False, parent: str | None = None) -> None:
    """Log each model on three devices under three loads."""
    outbox = Outbox(desk.folder / "mlruns")
    now = time.time()
    for number, model in enumerate(models, 1):
        for device, share in DEVICES.items():
            for load, percent in LOADS.items():
                name, cell = f"{model} / {device} / {load} / 1t", f"{model}-{device}-{load}"
                params = _params(model, device, share, load, percent)
                profile = _failed(now) if failed else _finished(now, number / share * (1 + percent / 100))
                record = record_profile(name, cell, params, profile, parent=parent)
                outbox.add(record, fill=partial(write_artifacts, profile, "{}"))
    outcome = desk("task=import")
    assert outcome.status == 0, outcome.err


def _params(model: str, device: str, share: float, load: str, percent: float) -> dict[str, Any]:
    return {
        "model": model,
        "device": device,
        "load": load,
        "load_percent": percent,
        "threads": 1,
        "share": share,
        "device_gflops": 200 * share,
        "device_cpu_model": "a processor",
    }


def _failed(now: float) -> Profile:
    return Profile("FAILED", now - 1, now, reasons=["the worker died: <b>signal</b> 9"])


def _finished(now: float, p50_ms: float) -> Profile:
    figures = {"p50": 1.0, "p50_low": 0.98, "p50_high": 1.02, "p95": 1.4}
    return Profile(
        "FINISHED",
        now - 1,
        now,
        "VALID",
        metrics={
            **{f"latency_{key}_ms": factor * p50_ms for key, factor in figures.items()},
            "throughput_per_s": 1000 / p50_ms,
            "samples": 150.0,
        },
        samples={
            "start_ns": np.arange(150) * 1_000_000,
            "latency_ns": np.linspace(0.9, 1.5, 150) * p50_ms * 1e6,
        },
        environment={"host": {"system": "Linux", "cores": 2}, "worker": {"onnxruntime": "1.0"}},
    )
