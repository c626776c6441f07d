"""A finished cell as it waits to be logged."""

import time
from dataclasses import replace
from typing import Any

import numpy as np

from pepper.measure.profile import Profile
from pepper.tracking.records import Record


def a_record(**changes: Any) -> Record:
    now = time.time()
    profile = Profile(
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
    return replace(Record("a / b / c", "cell" * 16, {"model": "a", "none": None}, profile, "model: a\n"), **changes)
