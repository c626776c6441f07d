"""The timed worker: ``python -m pepper.measure.worker``; imports numpy and onnxruntime only."""

import os
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from pepper.devices.memory import peak_memory_bytes
from pepper.devices.protocol import serve
from pepper.devices.spin import cpu_fraction
from pepper.measure.session import open_session, session_options
from pepper.measure.statistics import median_interval

NUMPY_TYPE = {
    "float": np.float32, "double": np.float64, "float16": np.float16, "bool": np.bool_,
    "int8": np.int8, "int16": np.int16, "int32": np.int32, "int64": np.int64,
    "uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64,
}  # fmt: skip
STEADY = 0.95  # warm-up is over once the latest third is no faster than this times the third before it


def random_inputs(
    session: ort.InferenceSession, shapes: Mapping[str, Sequence[int]], seed: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Make inputs by dtype and shape: floats in [0, 1), integers and booleans 0 or 1.

    Small integers are valid wherever a model looks something up by index.
    """
    rng = np.random.default_rng(seed)
    inputs = {}
    for value in session.get_inputs():
        kind = re.fullmatch(r"tensor\((\w+)\)", value.type)
        if kind is None or kind[1] not in NUMPY_TYPE:
            raise TypeError(f"input {value.name!r} is a {value.type}; pepper can only make numeric tensors")
        dtype = np.dtype(NUMPY_TYPE[kind[1]])
        shape = tuple(shapes[value.name])
        values = rng.random(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        inputs[value.name] = values.astype(dtype)
    return inputs


class Worker:
    """One model on one device; answers the parent's requests."""

    def facts(self) -> dict[str, Any]:
        """Return the versions and the surroundings of the process that times."""
        return {
            "onnxruntime": ort.__version__,
            "numpy": np.__version__,
            "affinity": sorted(os.sched_getaffinity(0)),
            "providers": ort.get_available_providers(),
        }

    def share(self, seconds: float) -> dict[str, Any]:
        """Return the fraction of wall time in which a busy loop really ran here."""
        return {"share": cpu_fraction(seconds)}

    def open(
        self,
        path: str,
        provider: str,
        threads: int,
        optimization: str,
        spinning: bool,
        parallel: bool,
        shapes: dict[str, list[int]],
        seed: int,
    ) -> dict[str, Any]:
        """Create the session and run it once; returns both times in ms."""
        self._path, self._provider = path, provider
        self._options = session_options(threads, optimization, spinning, parallel)
        start = time.perf_counter_ns()
        self._session = open_session(path, self._options, provider)
        created = time.perf_counter_ns()
        self._inputs = random_inputs(self._session, shapes, seed)
        ready = time.perf_counter_ns()
        outputs = self._session.run(None, self._inputs)
        first = time.perf_counter_ns()
        return {
            "session_create_ms": (created - start) / 1e6,
            "first_inference_ms": (first - ready) / 1e6,
            "input_bytes": sum(value.nbytes for value in self._inputs.values()),
            "output_bytes": sum(getattr(value, "nbytes", 0) for value in outputs),
        }

    def warm_up(self, min_seconds: float, max_seconds: float) -> dict[str, Any]:
        """Run until the latency no longer falls."""
        run, inputs, clock = self._session.run, self._inputs, time.perf_counter
        durations: list[float] = []
        start = now = clock()
        while now - start < max_seconds:
            run(None, inputs)
            before, now = now, clock()
            durations.append(now - before)
            third = len(durations) // 3
            if now - start >= min_seconds and third >= 2:
                latest, earlier = np.median(durations[-third:]), np.median(durations[-2 * third : -third])
                if latest >= STEADY * earlier:
                    break
        return {"warmup_samples": len(durations), "warmup_s": now - start}

    def time(
        self, min_seconds: float, min_samples: int, ci_percent: float, max_seconds: float, max_samples: int
    ) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
        """Time inferences until the stop rule is met (see :class:`pepper.config.MeasureConfig`).

        Returns:
            CPU and wall seconds of the span, peak memory of the process so far; and, for each inference,
            its start since the span's start and its duration, both in ns.
        """
        run, inputs, clock = self._session.run, self._inputs, time.perf_counter_ns
        starts: list[int] = []
        durations: list[int] = []
        check_at = min_samples
        cpu_start = time.process_time()
        span_start = clock()
        while True:
            before = clock()
            run(None, inputs)
            after = clock()
            starts.append(before - span_start)
            durations.append(after - before)
            count = len(durations)
            if count < check_at:
                continue
            elapsed = (after - span_start) / 1e9
            if elapsed >= max_seconds or count >= max_samples:
                break
            if elapsed >= min_seconds:
                low, high = median_interval(np.array(durations))
                if (high - low) / 2 <= ci_percent / 100 * float(np.median(durations)):
                    break
            # A check costs a sort: make it rare as samples grow, but do not run past a cap.
            left = min(max_samples - count, int((max_seconds - elapsed) * count / elapsed))
            check_at = count + max(1, min(count // 8, left))
        span = {
            "timed_s": (clock() - span_start) / 1e9,
            "cpu_s": time.process_time() - cpu_start,
            "peak_memory_bytes": peak_memory_bytes(),
        }
        return span, {"start_ns": np.array(starts), "latency_ns": np.array(durations)}

    def operators(self, runs: int) -> dict[str, Any]:
        """Profile each operator in a session of its own; returns onnxruntime's profile (JSON text).

        The profiler distorts the latency, so this pass shares nothing with the timing.
        """
        options = self._options
        with tempfile.TemporaryDirectory() as folder:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "operators")
            session = ort.InferenceSession(self._path, options, providers=[self._provider])
            for _ in range(runs):
                session.run(None, self._inputs)
            profile = Path(session.end_profiling()).read_text()
            options.enable_profiling = False
        return {"profile": profile, "runs": runs}


if __name__ == "__main__":
    worker = Worker()
    serve({name: getattr(worker, name) for name in ("facts", "share", "open", "warm_up", "time", "operators")})
