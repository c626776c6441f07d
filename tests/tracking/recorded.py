"""A finished cell as it is to be logged."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pepper.measure.profile import Profile
from pepper.tracking.profiles import record_profile, write_artifacts
from pepper.tracking.record import Record


def a_profile() -> Profile:
    now = time.time()
    return Profile(
        status="FINISHED",
        started_s=now - 1,
        ended_s=now,
        verdict="VALID",
        metrics={
            "latency_p50_ms": 2.5,
            "latency_p50_low_ms": 2.4,
            "latency_p50_high_ms": 2.6,
            "throughput_per_s": 400.0,
            "samples": 3.0,
        },
        samples={"start_ns": np.array([0, 10, 20]), "latency_ns": np.array([2_400_000, 2_500_000, 2_600_000])},
        environment={"before": {"affinity": [0, 1]}, "worker": {"onnxruntime": "1.0"}},
    )


def a_record(folder: Path, profile: Profile | None = None, **changes: Any) -> Record:
    """A cell's record whose artifacts are in a folder of the test's."""
    artifacts = Path(tempfile.mkdtemp(dir=folder))
    params = {"model": "a", "none": None}
    measured = profile or a_profile()
    write_artifacts(measured, "model: a\n", artifacts)
    return replace(record_profile("a / b / c", "cell" * 16, params, measured), artifacts=artifacts, **changes)
